import { invalid, shown } from './errors.ts'
import { checkNames, compileTopics, holds, type Keyed, type TopicFilter } from './topics.ts'

/** Events of these topics and keys in these namespaces, which somebody may or may not have to do with. */
export interface Rule {
  /** Default `allow`. What a `deny` names is denied, whatever else allows it. */
  readonly effect?: 'allow' | 'deny' | undefined
  /** As subscriptions name them; `*` as a topic or a key stands for all. Default: all. */
  readonly topics?: TopicFilter | undefined
  /** `*` stands for all, `''` for the events without a namespace. Default: all. */
  readonly namespaces?: readonly string[] | undefined
}

/** `all`, or what the rules allow and do not deny: nothing, where there are none. */
export type Rules = 'all' | readonly Rule[]

/** What somebody may do. */
export interface Rights {
  /** A rule finds an event by its key or by one of its filter keys, as a subscription does. Other events are passed over. */
  readonly read: Rules
  /** The key and all filter keys of an event must be allowed. */
  readonly publish: Rules
  /** Who it is: whom `revoke` and `recheck` mean, limits count and the audit log names. Default: the token. */
  readonly subject?: string | undefined
  /** Unix milliseconds at which these rights end, and the subscriptions that live on them. Default: never. */
  readonly expiresAt?: number | undefined
}

/** The rights of somebody who may do all. */
export const everything: Rights = { read: 'all', publish: 'all' }

const members: ReadonlySet<string> = new Set(['effect', 'topics', 'namespaces'])

interface CompiledRule {
  /** `undefined`: all. */
  readonly topics: ReadonlyMap<string, ReadonlySet<string>> | undefined
  readonly namespaces: ReadonlySet<string> | undefined
}

/** {@link Rules}, compiled. */
export class Permit {
  static readonly everything: Permit = new Permit('rules', 'all')

  /** Equal only for permits that allow the same. */
  readonly key: string
  /** Whether it allows all. */
  readonly isEverything: boolean
  readonly #allow: readonly CompiledRule[]
  readonly #deny: readonly CompiledRule[]

  /** Throws `INVALID` that names what is wrong, as a part of `field`. */
  constructor(field: string, rules: Rules) {
    if (rules !== 'all' && !Array.isArray(rules)) throw invalid(field, 'be "all" or an array of rules', rules)
    const list: readonly Rule[] = rules === 'all' ? [{}] : rules
    const compiled = list.map((rule, at) => compileRule(`${field}[${at}]`, rule))
    this.#allow = compiled.filter(({ denies }) => !denies)
    this.#deny = compiled.filter(({ denies }) => denies)
    this.isEverything = this.#deny.length === 0 && this.#allow.some(isUnlimited)
    this.key = this.isEverything ? 'all' : JSON.stringify(list.map(meaningOf))
  }

  /** Whether an event may be read: deny beats allow. */
  mayRead(event: Keyed): boolean {
    if (this.isEverything) return true
    return this.#allow.some((rule) => covers(rule, event)) && !this.#deny.some((rule) => covers(rule, event))
  }

  /** Whether an event may be published: under its key and under each of its filter keys. */
  mayPublish(event: Keyed): boolean {
    if (this.#deny.some((rule) => covers(rule, event))) return false
    const { topic, namespace, key, filterKeys } = event
    const isAllowed = (name: string) => {
      const alone = { topic, namespace, key: name, filterKeys: [] }
      return this.#allow.some((rule) => covers(rule, alone))
    }
    return isAllowed(key) && filterKeys.every(isAllowed)
  }

  /** Whether there can be an event of `topic`, or of any topic for `*`, that is allowed. */
  reaches(topic: string): boolean {
    return this.#allow.some(({ topics }) => {
      if (!topics) return true
      const keys = (name: string) => (topics.get(name)?.size ?? 0) > 0
      return topic === '*' ? [...topics.keys()].some(keys) : keys(topic) || keys('*')
    })
  }
}

function meaningOf({ effect = 'allow', topics, namespaces }: Rule): unknown {
  return [effect, topics ?? 0, namespaces ?? 0]
}

function isUnlimited({ topics, namespaces }: CompiledRule): boolean {
  return !namespaces && (!topics || topics.get('*')?.has('*') === true)
}

function covers({ topics, namespaces }: CompiledRule, event: Keyed): boolean {
  if (namespaces && !namespaces.has(event.namespace)) return false
  return !topics || holds(topics.get(event.topic), event) || holds(topics.get('*'), event)
}

function compileRule(field: string, rule: Rule): CompiledRule & { readonly denies: boolean } {
  if (typeof rule !== 'object' || rule === null || Array.isArray(rule)) throw invalid(field, 'be an object', rule)
  for (const name of Object.keys(rule)) {
    // A misspelt member would widen the rule.
    if (!members.has(name)) throw invalid(field, 'have no members beside effect, topics and namespaces', name)
  }
  const { effect = 'allow', topics, namespaces } = rule
  if (effect !== 'allow' && effect !== 'deny') throw invalid(`${field}.effect`, 'be "allow" or "deny"', effect)
  if (namespaces !== undefined) checkNames(`${field}.namespaces`, namespaces)
  return {
    denies: effect === 'deny',
    topics: topics === undefined ? undefined : compileTopics(topics, `${field}.topics`),
    namespaces: namespaces && !namespaces.includes('*') ? new Set(namespaces) : undefined,
  }
}

/** {@link Rights}, compiled and whole. */
export interface Access {
  readonly read: Permit
  readonly publish: Permit
  readonly subject: string
  /** `Infinity`: never. */
  readonly expiresAt: number
}

/**
 * What `authorize` answered for `token`. Throws a `TypeError` for an answer that says neither yes nor no: it is a defect of
 * whoever answers, and must not open anything.
 */
export function accessOf(answer: unknown, token: string): Access {
  const wrong = (what: string, must: string, value: unknown, cause?: unknown) =>
    new TypeError(`${what} of authorize must be ${must}, got ${shown(value)}.`, { cause })
  if (typeof answer !== 'object' || answer === null) throw wrong('The answer', '{ read, publish } or an error', answer)
  const { read, publish, subject = token, expiresAt = Number.POSITIVE_INFINITY } = answer as Rights
  if (typeof subject !== 'string') throw wrong('The subject', 'a string', subject)
  if (typeof expiresAt !== 'number' || Number.isNaN(expiresAt)) {
    throw wrong('The expiresAt', 'a time in Unix milliseconds', expiresAt)
  }
  try {
    return { read: new Permit('read', read), publish: new Permit('publish', publish), subject, expiresAt }
  } catch (cause) {
    throw new TypeError(`The answer of authorize has a mistake: ${(cause as Error).message}`, { cause })
  }
}

/** Changes that are remembered one by one; of older ones only that there were some. */
const mostChanges = 1000

/** Whose rights have changed lately: an answer that was asked for before does not count for them. */
export class RightsChanges {
  /** Grows with every change. */
  version = 0
  /** The newest changes; `undefined`: of anybody. */
  readonly #subjects: (string | undefined)[] = []

  note(subject: string | undefined): void {
    this.#subjects[this.version++ % mostChanges] = subject
  }

  /** Whether the rights of `subject` may have changed since `version`. */
  since(version: number, subject: string): boolean {
    if (this.version - version > mostChanges) return true
    for (let n = version; n < this.version; n++) {
      const changed = this.#subjects[n % mostChanges]
      if (changed === undefined || changed === subject) return true
    }
    return false
  }
}
