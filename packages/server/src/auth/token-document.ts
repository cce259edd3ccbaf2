import { Permit, type Rights, type Rule, type Rules } from 'spillway'
import { invalidField, objectOf, parseJson } from './checked-file.ts'
import { isTokenId, parseHash } from './secret.ts'

/** What several tokens may do. What is left out is not allowed. */
export interface Policy {
  readonly read?: Rules
  readonly publish?: Rules
}

/** A token as the file knows it. What it may do are its policies and the rules of its own, together. */
export interface KnownToken extends Policy {
  readonly id: string
  /** What it is for, for people. */
  readonly name: string
  /** `sha256:` and the digest of its secret in hex. */
  readonly hash: string
  /** Names of policies. */
  readonly policies?: readonly string[]
  /** ISO 8601. */
  readonly createdAt: string
  /** ISO 8601. Default: never. */
  readonly expiresAt?: string
}

/** The content of a file of tokens. */
export interface TokenDocument {
  readonly version: 1
  readonly policies: Readonly<Record<string, Policy>>
  readonly tokens: readonly KnownToken[]
}

/** Throws `INVALID` that names the field. */
export function parseTokenDocument(text: string): TokenDocument {
  const document = objectOf('It', parseJson(text), members.document)
  if (document.version !== 1) throw invalidField('version', 'be 1')
  const policies = document.policies ?? {}
  if (typeof policies !== 'object' || Array.isArray(policies)) throw invalidField('policies', 'be an object')
  for (const [name, policy] of Object.entries(policies)) {
    const field = `policies[${JSON.stringify(name)}]`
    checkRules(field, objectOf(field, policy, members.policy))
  }
  if (!Array.isArray(document.tokens)) throw invalidField('tokens', 'be an array')
  const ids = new Set<unknown>()
  for (const [at, token] of document.tokens.entries()) {
    checkToken(`tokens[${at}]`, token, policies)
    if (ids.has(token.id)) throw invalidField(`tokens[${at}].id`, 'differ from the ids of the other tokens')
    ids.add(token.id)
  }
  return { version: 1, policies: policies as TokenDocument['policies'], tokens: document.tokens }
}

/** The text of a document, for people to read and edit. */
export function formatTokenDocument(document: TokenDocument): string {
  return `${JSON.stringify(document, null, 2)}\n`
}

/** What the owner of a token may do. A rule of any policy that denies holds against all that allow. */
export function rightsIn({ policies }: TokenDocument, token: KnownToken): Rights {
  const parts = [token, ...(token.policies ?? []).map((name) => policies[name] ?? {})]
  return {
    read: parts.flatMap(({ read }) => listed(read)),
    publish: parts.flatMap(({ publish }) => listed(publish)),
    subject: subjectOf(token.id),
    expiresAt: token.expiresAt === undefined ? undefined : Date.parse(token.expiresAt),
  }
}

/** Whom the owner of a token is called where rights are checked and withdrawn. */
export function subjectOf(id: string): string {
  return `token:${id}`
}

// A rule that says nothing allows all, and can stand beside those that deny.
function listed(rules: Rules = []): readonly Rule[] {
  return rules === 'all' ? [{}] : rules
}

const members = {
  document: new Set(['version', 'policies', 'tokens']),
  policy: new Set(['read', 'publish']),
  token: new Set(['id', 'name', 'hash', 'policies', 'read', 'publish', 'createdAt', 'expiresAt']),
}

function checkToken(field: string, value: unknown, known: object): void {
  const token = objectOf(field, value, members.token)
  const { id, name, hash, policies = [], createdAt, expiresAt } = token
  if (typeof id !== 'string' || !isTokenId(id)) {
    throw invalidField(`${field}.id`, 'be 8 to 32 lower-case letters and digits')
  }
  if (typeof name !== 'string' || name === '') throw invalidField(`${field}.name`, 'be a text')
  if (typeof hash !== 'string' || !parseHash(hash)) {
    throw invalidField(`${field}.hash`, 'be "sha256:" and 64 hexadecimal digits in lower case')
  }
  if (!Array.isArray(policies)) throw invalidField(`${field}.policies`, 'be an array of names')
  for (const [at, policy] of policies.entries()) {
    if (typeof policy !== 'string' || !Object.hasOwn(known, policy)) {
      throw invalidField(`${field}.policies[${at}]`, 'be the name of one of the policies')
    }
  }
  checkTime(`${field}.createdAt`, createdAt)
  if (expiresAt !== undefined) checkTime(`${field}.expiresAt`, expiresAt)
  checkRules(field, token)
}

// A time without its zone would mean another in every place.
const timePattern = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)$/

function checkTime(field: string, value: unknown): void {
  if (typeof value === 'string' && timePattern.test(value) && !Number.isNaN(Date.parse(value))) return
  throw invalidField(field, 'be a time such as 2026-11-24T10:00:00Z')
}

function checkRules(field: string, { read = [], publish = [] }: Readonly<Record<string, unknown>>): void {
  new Permit(`${field}.read`, read as Rules)
  new Permit(`${field}.publish`, publish as Rules)
}
