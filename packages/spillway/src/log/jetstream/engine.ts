import {
  AckPolicy,
  type Consumer,
  type ConsumerConfig,
  DeliverPolicy,
  DiscardPolicy,
  JetStreamApiError,
  type JetStreamClient,
  type JetStreamManager,
  type JsMsg,
  jetstream,
  jetstreamManager,
  RetentionPolicy,
  StorageType,
  type StoredMsg,
  type StreamConfig,
  type StreamInfo,
} from '@nats-io/jetstream'
import type { NatsConnection } from '@nats-io/nats-core'
import { headerName, keyHeader, kindOf, parseHead, parseKey, type RecordKind, type StreamRecord } from './record.ts'
import { Sender } from './sender.ts'
import type { DeliveredMessage } from './stretch.ts'

/** A message as it was read, in whatever way. */
export type StreamMessage = JsMsg | DeliveredMessage | StoredMsg

/** Milliseconds that one request may take. */
const requestTimeout = 2000
/** The error of a request that nobody takes, and after how many milliseconds it is made again. */
const nobody = 'JetStreamNotEnabled'
const nobodyPause = 50
// [JetStream, error codes]
const streamNotFound = 10059
const noMessage = 10037

/** The stream of one log, as the engine serves it: requests, and what their answers mean. */
export class Engine {
  readonly connection: NatsConnection
  readonly stream: string
  readonly js: JetStreamClient
  readonly jsm: JetStreamManager
  readonly sender: Sender
  /** All but the kind of the subjects that this log writes. */
  base = ''

  private constructor(connection: NatsConnection, stream: string, jsm: JetStreamManager) {
    this.connection = connection
    this.stream = stream
    this.js = jetstream(connection, { timeout: requestTimeout })
    this.jsm = jsm
    this.sender = new Sender(connection, requestTimeout, (kind) => `${this.base}.${kind}`)
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

  close(): void {
    this.sender.close()
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

function ignore(): void {}
