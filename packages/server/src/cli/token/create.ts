import type { Rule, Rules } from 'spillway'
import { newToken } from '../../auth/secret.ts'
import type { KnownToken, TokenDocument } from '../../auth/token-document.ts'
import { changeTokens } from '../../auth/token-store.ts'
import { plain } from '../../terminal.ts'
import { type Command, defineCommand, type Values } from '../command.ts'
import { Failure, nearest, quoted, UsageError } from '../errors.ts'
import { duration } from '../values.ts'
import { asFileFailure, fileOption, tokenFile } from './file.ts'

/** A hundred years. */
const longest = 36_500 * 86_400_000

const options = {
  name: { type: 'string', value: '<text>', help: 'What the token is for, such as the program that shows it.' },
  policy: {
    type: 'string',
    multiple: true,
    value: '<name>',
    help: 'Give the rights of this policy of the file. Repeat for more.',
  },
  read: {
    type: 'string',
    multiple: true,
    value: '<topic[:key]>',
    help: 'Allow to read this topic, or this key in it; "*" is all. Repeat for more.',
  },
  publish: {
    type: 'string',
    multiple: true,
    value: '<topic[:key]>',
    help: 'Allow to publish to this topic, or to this key in it; "*" is all. Repeat for more.',
  },
  namespace: {
    type: 'string',
    multiple: true,
    value: '<name>',
    help: 'Limit --read and --publish to this namespace; "" is that of events without one. Repeat for more. Default: all',
  },
  expires: {
    type: 'string',
    value: '<time>',
    help: 'End the token after this long, such as 12h or 90d. Default: never',
  },
  ...fileOption,
} as const

/** `spillway token create`. */
export const create: Command = defineCommand({
  name: 'create',
  summary: 'Make a token and print it. It is shown this once.',
  usage: ['spillway token create --name <text> [options]'],
  options,
  notes: [
    'The token is the only line on standard output. The file keeps a hash, by which nobody finds the token again.',
    'The file is made if need be, for its owner only. A server that runs with it knows the token at once.',
  ],
  examples: [
    "spillway token create --name backend --read '*' --publish '*'",
    'spillway token create --name dashboard --read Order --read Job:web --namespace prod --expires 90d',
    'SPILLWAY_TOKEN=$(spillway token create --name ci --policy orders-reader) spillway tail',
  ],
  run: runCreate,
})

async function runCreate(values: Values<typeof options>): Promise<number> {
  const { name, policy: policies, namespace, expires } = values
  if (!name) throw new UsageError('--name is required.')
  if (policies.length + values.read.length + values.publish.length === 0) {
    throw new UsageError('Say what the token may do, with --policy, --read or --publish.')
  }
  if (namespace.length > 0 && values.read.length + values.publish.length === 0) {
    throw new UsageError('--namespace limits --read and --publish, and there is none of them.')
  }
  const read = rulesOf('--read', values.read, namespace)
  const publish = rulesOf('--publish', values.publish, namespace)
  const life = expires === undefined ? undefined : duration('--expires', expires, 1000, longest)
  const file = tokenFile(values.file)
  const { id, text, hash } = newToken()
  const now = Date.now()
  const known: KnownToken = {
    id,
    name,
    hash,
    ...(policies.length > 0 && { policies }),
    ...(read && { read }),
    ...(publish && { publish }),
    createdAt: new Date(now).toISOString(),
    ...(life !== undefined && { expiresAt: new Date(now + life).toISOString() }),
  }
  try {
    await changeTokens(file, (document) => withToken(document, known, file))
  } catch (error) {
    throw asFileFailure(error)
  }
  process.stderr.write(`Token ${id} is in ${plain(file)}. Keep it now: it is shown this once.\n`)
  process.stdout.write(`${text}\n`)
  return 0
}

function withToken(document: TokenDocument, token: KnownToken, file: string): TokenDocument {
  const known = Object.keys(document.policies)
  for (const policy of token.policies ?? []) {
    if (known.includes(policy)) continue
    const near = nearest(policy, known)
    throw new Failure(`${file} has no policy ${quoted(policy)}.${near ? ` Did you mean ${near}?` : ''}`)
  }
  return { ...document, tokens: [...document.tokens, token] }
}

function rulesOf(option: string, places: readonly string[], namespaces: readonly string[]): Rules | undefined {
  if (places.length === 0) return undefined
  const topics = new Map<string, string[]>()
  for (const place of places) {
    const [, topic = '', key = '*'] = /^([^:]+)(?::(.*))?$/s.exec(place) ?? []
    if (topic === '') throw new UsageError(`${option} must be a topic or topic:key, got ${quoted(place)}.`)
    topics.set(topic, [...(topics.get(topic) ?? []), key])
  }
  const rule: Rule = { topics: Object.fromEntries(topics), ...(namespaces.length > 0 && { namespaces }) }
  return [rule]
}
