import {
  AckPolicy,
  type ApiError,
  type Consumer,
  type ConsumerConfig,
  DeliverPolicy,
  DiscardPolicy,
  JetStreamApiError,
  type JetStreamClient,
  JetStreamError,
  type JetStreamManager,
  type JsMsg,
  jetstream,
  jetstreamManager,
  type PubAck,
  PubHeaders,
  RetentionPolicy,
  StorageType,
  type StoredMsg,
  type StreamConfig,
  type StreamInfo,
} from '@nats-io/jetstream'
import { headers, type Msg, type NatsConnection } from '@nats-io/nats-core'
import { SpillwayError, shown } from '../../core/errors.ts'
import { Publisher } from './publisher.ts'
import {
  formatHead,
  formatKey,
  headerName,
  keyHeader,
  kindOf,
  parseHead,
  parseKey,
  type RecordHead,
  type RecordKey,
  type RecordKind,
  type StreamRecord,
} from './record.ts'
import type { DeliveredMessage } from './stretch.ts'

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

/** A message as it was read, in whatever way. */
export type StreamMessage = JsMsg | DeliveredMessage | StoredMsg

/** Milliseconds that one request may take. */
const requestTimeout = 2000
/** The error of a request that nobody takes, and after how many milliseconds it is made again. */
const nobody = 'JetStreamNotEnabled'
const nobodyPause = 50
/** How long one pull waits for messages, and how often it is repeated where nobody answers, after how long at first. */
const pullTimeout = 2000
const mostPulls = 6
const pullPause = 10
/** [JetStream, error codes] The stream's newest sequence or message id is another one than expected. */
const wrongLast = [10070, 10071, 10164]
const streamNotFound = 10059
const noMessage = 10037

/** The stream of one log, as the engine serves it: requests, and what their answers mean. */
export class Engine {
  readonly connection: NatsConnection
  readonly stream: string
  readonly js: JetStreamClient
  readonly jsm: JetStreamManager
  /** All but the kind of the subjects that this log writes. */
  base = ''
  readonly #publisher: Publisher

  private constructor(connection: NatsConnection, stream: string, jsm: JetStreamManager) {
    this.connection = connection
    this.stream = stream
    this.js = jetstream(connection, { timeout: requestTimeout })
    this.jsm = jsm
    this.#publisher = new Publisher(connection, requestTimeout)
  }

  static async of(connection: NatsConnection, stream: string): Promise<Engine> {
    return new Engine(
      connection,
      stream,
      await jetstreamManager(connection, { timeout: requestTimeout, checkAPI: false }),
    )
  }

  /** `undefined`: there is no such stream. */
  async info(): Promise<StreamInfo | undefined> {
    return orNone(() => this.jsm.streams.info(this.stream), streamNotFound)
  }

  async create(config: Partial<StreamConfig>): Promise<StreamInfo> {
    return this.jsm.streams.add({
      ...config,
      name: this.stream,
      retention: RetentionPolicy.Limits,
      discard: DiscardPolicy.Old,
      storage: StorageType.File,
    })
  }

  /**
   * Whether messages may be sent before those they are to stand behind were confirmed. Newer engines in a cluster check the
   * id of the message before only as they store, on all nodes, and a stream stops for good at one that does not fit (seen
   * with 2.15.1: "critical write error: last msgid mismatch").
   */
  get takesChains(): boolean {
    const { version = '', cluster } = this.connection.info ?? {}
    const [major = 0, minor = 0] = version.split('.').map(Number)
    return !cluster || (major === 2 && minor <= 10)
  }

  /** Stores a message, and never rejects. */
  async publish({ kind, head, data, id, key }: Draft, condition?: Condition): Promise<Outcome> {
    const fields = headers()
    fields.append(headerName, formatHead(head))
    if (key) fields.append(keyHeader, formatKey(key))
    fields.append(PubHeaders.MsgIdHdr, id)
    if (condition) fields.append(PubHeaders.ExpectedLastSeqHdr, String(condition.after))
    if (condition?.behind !== undefined) fields.append(PubHeaders.ExpectedLastMsgIdHdr, condition.behind)
    try {
      const { seq, duplicate } = readAck(await this.#publisher.request(`${this.base}.${kind}`, data, fields))
      if (!duplicate) return { kind: 'stored', seq }
      // The transport sent it twice: what became of the first is told by reading.
      return { kind: 'unknown', error: new Error('the engine has seen this message before') }
    } catch (cause) {
      const error = asError(cause)
      if (!(error instanceof JetStreamApiError))
        return isRefusal(error) ? { kind: 'refused', error } : { kind: 'unknown', error }
      if (wrongLast.includes(error.code)) return { kind: 'conflict' }
      return { kind: 'refused', error }
    }
  }

  close(): void {
    this.#publisher.close()
  }

  /** The message with a sequence, as the leader has it. */
  async message(seq: number): Promise<StoredMsg | undefined> {
    return (await orNone(() => this.jsm.streams.getMessage(this.stream, { seq }), noMessage)) ?? undefined
  }

  /** The first message of a kind, or of any, at or after a sequence. */
  async next(kind: RecordKind | '*', seq: number): Promise<StoredMsg | undefined> {
    const query = { seq: Math.max(1, seq), next_by_subj: `${this.base}.${kind}` }
    return (await orNone(() => this.jsm.streams.getMessage(this.stream, query), noMessage)) ?? undefined
  }

  /** The newest message of a kind. */
  async newest(kind: RecordKind): Promise<StoredMsg | undefined> {
    const query = { last_by_subj: `${this.base}.${kind}` }
    return (await orNone(() => this.jsm.streams.getMessage(this.stream, query), noMessage)) ?? undefined
  }

  /** Whether the stream holds nothing but batches, so that sequences count them. */
  async hasBatchesOnly(): Promise<boolean> {
    const { state } = await patiently(() => this.jsm.streams.info(this.stream, { subjects_filter: `${this.base}.*` }))
    return Object.keys(state.subjects ?? {}).every((subject) => kindOf(subject) === 'batch')
  }

  /** How many messages of a kind the stream has from a sequence on. */
  async count(kind: RecordKind, seq: number): Promise<number> {
    // The node that answers may not have heard of all yet, for some milliseconds.
    for (let last = -1; ; ) {
      const consumer = await this.consumer(seq, { filter_subject: `${this.base}.${kind}` })
      const { num_pending: pending } = await consumer.info(true)
      consumer.delete().catch(ignore)
      if (pending === last) return pending
      last = pending
    }
  }

  /** A reader from a sequence on, that goes when nobody uses it. */
  async consumer(seq: number, more: Partial<ConsumerConfig> = {}): Promise<Consumer> {
    const config = {
      deliver_policy: DeliverPolicy.StartSequence,
      opt_start_seq: Math.max(1, seq),
      ack_policy: AckPolicy.None,
      inactive_threshold: 30_000_000_000,
      mem_storage: true,
      num_replicas: 1,
      ...more,
    }
    const info = await patiently(() => this.jsm.consumers.add(this.stream, config))
    return this.js.consumers.getConsumerFromInfo(info)
  }

  /** Gives `take` up to `count` messages that a consumer has, until that says that they are enough. */
  async pull(consumer: Consumer, count: number, take: (message: JsMsg) => boolean): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      let isEmpty = true
      try {
        const messages = await consumer.fetch({ max_messages: count, expires: pullTimeout })
        for await (const message of messages) {
          isEmpty = false
          if (!take(message)) return
        }
        return
      } catch (error) {
        // A new consumer may not be known at once to the node that is asked. Another one would only be one more.
        const mayWait = error instanceof JetStreamError && isEmpty && attempt < mostPulls
        if (!mayWait) throw error
        await new Promise((resolve) => setTimeout(resolve, pullPause * 2 ** attempt))
      }
    }
  }

  /** `undefined`: this is no record of this log. */
  record(message: StreamMessage): StreamRecord | undefined {
    const { seq, subject, data } = message
    const kind = subject.startsWith(this.base) ? kindOf(subject) : undefined
    const head = kind && parseHead(headerOf(message, headerName))
    if (!head) return undefined
    const key = parseKey(headerOf(message, keyHeader))
    return key ? { seq, kind, head, data, key } : { seq, kind, head, data }
  }
}

/** Throws what the engine refuses. */
function readAck(answer: Msg): PubAck {
  const { error, ...ack } = answer.json<PubAck & { readonly error?: ApiError }>()
  if (error) throw new JetStreamApiError(error)
  return ack
}

export function headerOf(message: StreamMessage, name: string): string {
  return ('header' in message ? message.header : message.headers)?.get(name) ?? ''
}

/** Asks again for a moment where nobody answers: a stream that was just made, or whose leader went, is not known to all nodes. */
async function patiently<T>(ask: () => Promise<T>): Promise<T> {
  for (const deadline = performance.now() + requestTimeout; ; ) {
    try {
      return await ask()
    } catch (error) {
      const isNobody = error instanceof Error && error.name === nobody
      if (!isNobody || performance.now() > deadline) throw error
      await new Promise((resolve) => setTimeout(resolve, nobodyPause))
    }
  }
}

/** What the engine says of a missing thing is no failure. */
async function orNone<T>(ask: () => Promise<T>, code: number): Promise<T | undefined> {
  try {
    return await patiently(ask)
  } catch (error) {
    if (error instanceof JetStreamApiError && error.code === code) return undefined
    throw error
  }
}

function isRefusal(error: Error): boolean {
  return error.name === 'PermissionViolationError' || error.name === 'InvalidArgumentError'
}

export function asError(cause: unknown): Error {
  return cause instanceof Error ? cause : new Error(String(cause))
}

/** A failure of the engine as readers and publishers are told of it. */
export function engineFailure(what: string, cause: unknown): SpillwayError {
  return new SpillwayError('LOG_FAILED', `${what} ${shownError(cause)}`, { cause })
}

export function shownError(cause: unknown): string {
  const { message, name } = asError(cause)
  return `The engine says: ${shown(message || name)}.`
}

function ignore(): void {}
