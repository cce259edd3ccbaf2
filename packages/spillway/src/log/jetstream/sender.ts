import { type ApiError, JetStreamApiError, type PubAck, PubHeaders } from '@nats-io/jetstream'
import { headers, type Msg, type MsgHdrs, type NatsConnection } from '@nats-io/nats-core'
import { asError } from './failure.ts'
import { Publisher } from './publisher.ts'
import {
  formatHead,
  formatKey,
  headerName,
  keyHeader,
  type RecordHead,
  type RecordKey,
  type RecordKind,
} from './record.ts'

/** What is to be stored as one message. */
export interface Draft {
  readonly kind: RecordKind
  readonly head: RecordHead
  readonly data: Uint8Array
  /** No other message has it. */
  readonly id: string
  readonly key?: RecordKey | undefined
}

/** When the engine may store it: while this is the newest sequence of the stream, and this the id of its newest message. */
export interface Condition {
  readonly after: number
  readonly behind?: string | undefined
}

/** What became of a message. `unknown`: nobody answered, it may have been stored. */
export type Outcome =
  | { readonly kind: 'stored'; readonly seq: number }
  | { readonly kind: 'conflict' }
  | { readonly kind: 'refused'; readonly error: Error }
  | { readonly kind: 'unknown'; readonly error: Error }

/** Messages that wait for their answers at once, which one group can be [NATS, ADR-50: 1,000 at most], and their bytes. */
export const mostInFlight = 1000
export const mostBytes: number = 4 * 2 ** 20
/** Bytes of a message beside its body: its subject and headers. */
export const headerRoom = 4096
// [JetStream, error codes]
/** The stream's newest sequence or message id is another one than expected. */
const wrongLast = [10070, 10071, 10164]
const groupTooLarge = 10199

/** Sends messages that are to be stored in the stream of a log, each behind the one before it. */
export class Sender {
  /** Whether the stream is set to take groups. */
  allowsGroups = false
  readonly #connection: NatsConnection
  readonly #subjectOf: (kind: RecordKind) => string
  readonly #publisher: Publisher
  /** Less where the engine was set to take less, as is found when it refuses one. */
  #mostInGroup = mostInFlight

  /** Waits `timeout` milliseconds for each answer. */
  constructor(connection: NatsConnection, timeout: number, subjectOf: (kind: RecordKind) => string) {
    this.#connection = connection
    this.#subjectOf = subjectOf
    this.#publisher = new Publisher(connection, timeout)
  }

  close(): void {
    this.#publisher.close()
  }

  /** How many messages {@link sendAll} takes. */
  get mostAtOnce(): number {
    if (this.#takesChains) return mostInFlight
    return this.allowsGroups && knowsGroups(this.#connection) ? this.#mostInGroup : 1
  }

  /**
   * Messages may be sent before those they are to stand behind were confirmed. Newer engines in a cluster check the id of the
   * message before only as they store, on all nodes, and a stream stops for good at one that does not fit (seen with 2.15.1:
   * "critical write error: last msgid mismatch"). While the connection is away it is not known what the next engine is.
   */
  get #takesChains(): boolean {
    const { info } = this.#connection
    return info !== undefined && (info.cluster === undefined || !isAtLeast(this.#connection, 2, 11))
  }

  /**
   * Stores messages, the first one right behind sequence `after`, the others right behind each other, so that what is stored
   * is a beginning of them. Gives no outcome for those behind one of which it is known that it was not stored. Rejects only
   * for a key with half a character.
   */
  async sendAll(drafts: readonly Draft[], after: number): Promise<readonly Outcome[]> {
    if (drafts.length > 1 && !this.#takesChains) return this.#sendGroup(drafts, after)
    return Promise.all(
      // The number alone would hold again once somebody else has filled the place of one that was refused.
      drafts.map((draft, n) => this.send(draft, { after: after + n, behind: drafts[n - 1]?.id })),
    )
  }

  /** Stores a message. Rejects only for a key with half a character. */
  async send(draft: Draft, condition?: Condition): Promise<Outcome> {
    const fields = headersOf(draft)
    fields.append(PubHeaders.MsgIdHdr, draft.id)
    if (condition) fields.append(PubHeaders.ExpectedLastSeqHdr, String(condition.after))
    if (condition?.behind !== undefined) fields.append(PubHeaders.ExpectedLastMsgIdHdr, condition.behind)
    return this.#request(draft, fields)
  }

  async #sendGroup(drafts: readonly Draft[], after: number): Promise<readonly Outcome[]> {
    const outcome = await this.#commitGroup(drafts, after)
    if (outcome.kind === 'stored') {
      return drafts.map((_, n) => ({ kind: 'stored', seq: outcome.seq - drafts.length + 1 + n }))
    }
    // For one of them, or because the group was not whole or not allowed: each by itself is told what is wrong with it.
    return outcome.kind === 'refused' ? this.#sendSingly(drafts, after) : drafts.map(() => outcome)
  }

  /** One after the other, up to the first that is not stored. */
  async #sendSingly(drafts: readonly Draft[], after: number): Promise<readonly Outcome[]> {
    const outcomes: Outcome[] = []
    for (const [n, draft] of drafts.entries()) {
      const outcome = await this.send(draft, { after: after + n })
      outcomes.push(outcome)
      if (outcome.kind !== 'stored') break
    }
    return outcomes
  }

  /** Stores all or none [NATS, ADR-50 "JetStream Batch Publishing"]: only the last one is answered, for all. */
  async #commitGroup(drafts: readonly Draft[], after: number): Promise<Outcome> {
    const group = drafts.map((draft, n) => {
      const fields = headersOf(draft)
      fields.append('Nats-Batch-Id', drafts[0]?.id ?? '')
      fields.append('Nats-Batch-Sequence', String(n + 1))
      if (n === 0) fields.append(PubHeaders.ExpectedLastSeqHdr, String(after))
      if (n === drafts.length - 1) fields.append('Nats-Batch-Commit', '1')
      return { draft, fields }
    })
    const last = group.pop() as (typeof group)[number]
    try {
      for (const { draft, fields } of group) {
        this.#connection.publish(this.#subjectOf(draft.kind), draft.data, { headers: fields })
      }
    } catch (cause) {
      return { kind: 'unknown', error: asError(cause) }
    }
    return this.#request(last.draft, last.fields, drafts.length)
  }

  /** `size`: how many messages it stands for. */
  async #request({ kind, data }: Draft, fields: MsgHdrs, size = 1): Promise<Outcome> {
    try {
      const { seq, duplicate, count = 1 } = readAck(await this.#publisher.request(this.#subjectOf(kind), data, fields))
      // A leader of an older version knows no groups, and stores their messages one by one: what became of them is told by reading.
      if (count < size) return { kind: 'unknown', error: new Error('the leader of the stream takes no groups') }
      if (!duplicate) return { kind: 'stored', seq }
      // The transport sent it twice: what became of the first is told by reading.
      return { kind: 'unknown', error: new Error('the engine has seen this message before') }
    } catch (cause) {
      const error = asError(cause)
      if (!(error instanceof JetStreamApiError))
        return isRefusal(error) ? { kind: 'refused', error } : { kind: 'unknown', error }
      if (wrongLast.includes(error.code)) return { kind: 'conflict' }
      if (error.code === groupTooLarge) this.#mostInGroup = Math.ceil(this.#mostInGroup / 2)
      return { kind: 'refused', error }
    }
  }
}

/** Whether an engine takes groups of messages from streams that are set to it. */
export function knowsGroups(connection: NatsConnection): boolean {
  return isAtLeast(connection, 2, 12)
}

function isAtLeast({ info }: NatsConnection, major: number, minor: number): boolean {
  const [first = 0, second = 0] = (info?.version ?? '').split('.').map(Number)
  return first > major || (first === major && second >= minor)
}

/** The transport's headers that say what kind of record a message is. */
function headersOf({ head, key }: Draft): MsgHdrs {
  const fields = headers()
  fields.append(headerName, formatHead(head))
  if (key) fields.append(keyHeader, formatKey(key))
  return fields
}

/** Throws what the engine refuses. */
function readAck(answer: Msg): PubAck & { readonly count?: number } {
  const { error, ...ack } = answer.json<PubAck & { readonly error?: ApiError; readonly count?: number }>()
  if (error) throw new JetStreamApiError(error)
  return ack
}

function isRefusal(error: Error): boolean {
  return error.name === 'PermissionViolationError' || error.name === 'InvalidArgumentError'
}
