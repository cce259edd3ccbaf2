import { invalid, SpillwayError, shown } from './errors.ts'
import { microtask } from './microtask.ts'

/** Topic names and the type of each topic's payload, for brokers and clients that know them at compile time. */
export type TopicMap = Record<string, unknown>

/** Something that happened, as a reader sees it. Shared by all readers: do not change it. */
export interface StreamEvent<Topic extends string = string, Payload = unknown> {
  readonly topic: Topic
  readonly type: string
  /** What it happened to. `''` if the publisher named nothing. */
  readonly key: string
  /** `''` if the event belongs to no namespace; it then passes every namespace list. */
  readonly namespace: string
  /** Other keys under which readers find this event. */
  readonly filterKeys: readonly string[]
  /** The published JSON value; `null` if there was none. */
  readonly payload: Payload
}

/** The events of `Topics`, as a union that `event.topic` narrows. */
export type EventOf<Topics extends object> = {
  [Topic in keyof Topics & string]: StreamEvent<Topic, Topics[Topic]>
}[keyof Topics & string]

/** An event to publish. Names may be up to 1,024 UTF-16 units long and hold no control characters. */
export interface EventInput<Topic extends string = string, Payload = unknown> {
  /** Not empty, not `*` and without `:`, which separates topic and key where readers ask for both. */
  topic: Topic
  /** Not empty. */
  type: string
  key?: string | undefined
  namespace?: string | undefined
  /** At most 256. */
  filterKeys?: readonly string[] | undefined
  /** Anything that JSON can say, nested at most 64 deep, or JSON that is already text as a {@link JsonText}. */
  payload?: Payload | JsonText | undefined
}

/** Without a payload readers get `null`: it may only be left out where that is a payload of the topic. */
type PayloadOf<Payload> = null extends Payload ? unknown : { payload: Payload | JsonText }

/** The events to publish of `Topics`. */
export type InputOf<Topics extends object> = {
  [Topic in keyof Topics & string]: EventInput<Topic, Topics[Topic]> & PayloadOf<Topics[Topic]>
}[keyof Topics & string]

/** Events to publish under one index. */
export interface BatchInput<Event = EventInput> {
  events: readonly Event[]
  /** An index above the newest, which may skip numbers. Default: the next. */
  index?: number | undefined
  /** What errors call this batch. Default: its position among those published with it. */
  name?: string | undefined
}

/** Events published under one index, delivered together, as a reader sees them. */
export interface Batch<Event extends StreamEvent = StreamEvent> {
  readonly index: number
  /** Resumes after this batch. */
  readonly cursor: string
  /** Those events of the batch that the reader asked for, in publish order. Empty only beside a `gap`. */
  readonly events: readonly Event[]
  /** Set when this reader lost batches; it then stands alone, with no events, before the next batch. */
  readonly gap?: Gap
}

/** Batches strictly between `after` and `before` may be missing for this reader; nothing outside is. */
export interface Gap {
  /** The last index that the reader saw, in the history that its cursor belonged to. */
  readonly after: number
  /** The index from which on everything is delivered. */
  readonly before: number
  /**
   * `lag`: the reader was slower than the buffer is long. `retention`: it resumed from a place that is no longer kept.
   * `epoch`: its cursor belongs to another history, so `after` does not compare with `before`.
   * `truncated`: its cursor lies beyond the newest index of this history. `corrupt`: the log's storage was damaged.
   */
  readonly reason: 'lag' | 'retention' | 'epoch' | 'truncated' | 'corrupt'
}

/** A payload that is JSON already. It is stored and served as it is, except that line breaks between tokens become spaces. */
export class JsonText {
  readonly text: string

  /** Throws `INVALID` if `text` is not JSON or has lone surrogates. */
  constructor(text: string) {
    if (typeof text !== 'string') throw invalid('JsonText', 'be given a string', text)
    if (loneSurrogate.test(text))
      throw new SpillwayError('INVALID', 'JsonText must hold no lone surrogates, they have no UTF-8.')
    try {
      JSON.parse(text)
    } catch (cause) {
      throw new SpillwayError('INVALID', `JsonText: ${cause instanceof Error ? cause.message : String(cause)}`, {
        cause,
      })
    }
    this.text = text
  }

  /** Inside another payload it would be stored as an object with a text. */
  toJSON(): never {
    throw new SpillwayError('INVALID', 'a JsonText must be the whole payload')
  }
}

/** An event as logs, buffers and encoders hold it: names checked, the payload as one line of JSON. */
export class StoredEvent {
  readonly topic: string
  readonly type: string
  readonly key: string
  readonly namespace: string
  readonly filterKeys: readonly string[]
  /** JSON without line breaks, the publisher's bytes otherwise. `null` where there was no payload. */
  readonly payloadText: string
  #view: StreamEvent | undefined

  constructor(fields: Omit<StreamEvent, 'payload'>, payloadText: string) {
    this.topic = fields.topic
    this.type = fields.type
    this.key = fields.key
    this.namespace = fields.namespace
    this.filterKeys = fields.filterKeys
    this.payloadText = payloadText
  }

  /** The event for a reader in this process. Parsed on first use and kept for all; readers over the network never cause it. */
  get view(): StreamEvent {
    this.#view ??= this.#parse()
    return this.#view
  }

  /**
   * The event for a look at it. It is not kept beyond this turn: a parsed payload may take a hundred times its bytes, and
   * filters of readers over the network look at everything.
   */
  glance(): StreamEvent {
    if (this.#view) return this.#view
    if (glanced?.event === this) return glanced.view
    if (!glanced) microtask(() => (glanced = undefined))
    glanced = { event: this, view: this.#parse() }
    return glanced.view
  }

  #parse(): StreamEvent {
    return {
      topic: this.topic,
      type: this.type,
      key: this.key,
      namespace: this.namespace,
      filterKeys: this.filterKeys,
      payload: JSON.parse(this.payloadText),
    }
  }
}

/** The newest of those that were looked at: many readers look at one after the other. */
let glanced: { readonly event: StoredEvent; readonly view: StreamEvent } | undefined

/** Checked events that wait for their index. */
export interface PendingBatch {
  readonly events: readonly StoredEvent[]
  /** Approximate size, see {@link StoredBatch.bytes}. */
  readonly bytes: number
  /** The index that the publisher wants; absent: the next one. */
  readonly index?: number
  /** When it was stored in the log that it comes from, in Unix milliseconds; absent: it is new. */
  readonly time?: number
}

/** A batch as logs and buffers hold it. */
export class StoredBatch {
  readonly epoch: string
  readonly index: number
  readonly events: readonly StoredEvent[]
  /** UTF-8 length of the payloads and names: what limits in bytes count. */
  readonly bytes: number
  #view: Batch | undefined

  constructor(epoch: string, index: number, { events, bytes }: PendingBatch) {
    this.epoch = epoch
    this.index = index
    this.events = events
    this.bytes = bytes
  }

  get cursor(): string {
    return `${this.epoch}:${this.index}`
  }

  /** The whole batch for a reader in this process, made on first use and shared. */
  get view(): Batch {
    this.#view ??= this.viewOf(this.events)
    return this.#view
  }

  /** The part of this batch that one reader asked for. */
  viewOf(events: readonly StoredEvent[]): Batch {
    return { index: this.index, cursor: this.cursor, events: events.map((event) => event.view) }
  }
}

const maxNameLength = 1024
const maxFilterKeys = 256
const maxDepth = 64
// Lone surrogates have no UTF-8: they would reach a reader changed.
const loneSurrogate = /\p{Cs}/u
const controlOrLoneSurrogate = /[\p{Cc}\p{Cs}]/u
const fields = new Set(['topic', 'type', 'key', 'namespace', 'filterKeys', 'payload'])

/**
 * Checks `events` and encodes their payloads. Nothing that passes can fail later: not in an encoder, a log or a reader.
 * Throws `INVALID` that names the event, the field, what was expected and what came; `batch` is how it calls the batch.
 */
export function encodeEvents(events: readonly EventInput[], index?: number, batch?: string): PendingBatch {
  const within = batch === undefined ? '' : `${batch}: `
  if (index !== undefined) checkIndex(`${within}index`, index, 1)
  let bytes = 0
  // Array.from: map would pass over the holes of a sparse array.
  const encoded = Array.from(events, (event, position) => {
    const at = within + (events.length === 1 ? 'event' : `events[${position}]`)
    const stored = encodeEvent(event, at)
    bytes += byteLength(stored.topic) + byteLength(stored.type) + byteLength(stored.key) + byteLength(stored.namespace)
    for (const key of stored.filterKeys) bytes += byteLength(key)
    bytes += measure(stored.payloadText, `${at}.payload`)
    return stored
  })
  return index === undefined ? { events: encoded, bytes } : { events: encoded, bytes, index }
}

function encodeEvent(event: EventInput, at: string): StoredEvent {
  if (typeof event !== 'object' || event === null || Array.isArray(event)) {
    throw invalid(at, 'be an object', event)
  }
  for (const field of Object.keys(event)) {
    if (fields.has(field)) continue
    throw new SpillwayError('INVALID', `${at} has the unknown field ${shown(field)}. Known: ${[...fields].join(', ')}.`)
  }
  const { filterKeys = [] } = event
  if (!Array.isArray(filterKeys) || filterKeys.length > maxFilterKeys) {
    const expected = `an array of at most ${maxFilterKeys} strings`
    throw invalid(`${at}.filterKeys`, `be ${expected}`, filterKeys)
  }
  const topic = requiredName(event.topic, `${at}.topic`)
  if (topic === '*' || topic.includes(':')) {
    throw invalid(`${at}.topic`, 'not be "*" or hold ":", which mean something to readers', topic)
  }
  return new StoredEvent(
    {
      topic,
      type: requiredName(event.type, `${at}.type`),
      key: name(event.key ?? '', `${at}.key`),
      namespace: name(event.namespace ?? '', `${at}.namespace`),
      filterKeys: Array.from(filterKeys, (key, position) => name(key, `${at}.filterKeys[${position}]`)),
    },
    encodePayload(event.payload, `${at}.payload`),
  )
}

function requiredName(value: unknown, at: string): string {
  if (value === undefined || value === '') throw invalid(at, 'be a non-empty string', value)
  return name(value, at)
}

function name(value: unknown, at: string): string {
  if (typeof value !== 'string') throw invalid(at, 'be a string', value)
  if (value.length > maxNameLength) {
    throw new SpillwayError('INVALID', `${at} must have at most ${maxNameLength} UTF-16 units, got ${value.length}.`)
  }
  if (controlOrLoneSurrogate.test(value)) {
    throw invalid(at, 'hold no control characters or lone surrogates', value)
  }
  return value
}

function encodePayload(payload: unknown, at: string): string {
  if (payload === undefined) return 'null'
  // In valid JSON a raw line break stands only between tokens; on the wire it would end the line too early.
  if (payload instanceof JsonText) return payload.text.replace(/[\r\n]/g, ' ')
  let text: string | undefined
  try {
    text = JSON.stringify(payload)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message.split('\n', 1)[0] : String(cause)
    throw new SpillwayError('INVALID', `${at} must be a JSON value: ${reason}.`, { cause })
  }
  if (text === undefined) throw invalid(at, 'be a JSON value', payload)
  return text
}

/** UTF-8 length of JSON text. Throws where it nests deeper than the JSON readers of other languages are sure to follow. */
function measure(text: string, at: string): number {
  let bytes = text.length
  let depth = 0
  let inString = false
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i)
    if (unit > 0x7f) bytes += extraBytes(unit)
    else if (inString) {
      if (unit === 0x5c) i++
      else if (unit === 0x22) inString = false
    } else if (unit === 0x22) inString = true
    else if (unit === 0x7b || unit === 0x5b) {
      if (++depth > maxDepth) throw new SpillwayError('INVALID', `${at} must nest at most ${maxDepth} levels deep.`)
    } else if (unit === 0x7d || unit === 0x5d) depth--
  }
  return bytes
}

function byteLength(text: string): number {
  let bytes = text.length
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i)
    if (unit > 0x7f) bytes += extraBytes(unit)
  }
  return bytes
}

/** What a UTF-16 unit above 0x7f takes in UTF-8 beyond one byte; each half of a surrogate pair takes two bytes in all. */
function extraBytes(unit: number): number {
  if (unit <= 0x7ff) return 1
  return unit >= 0xd800 && unit <= 0xdfff ? 1 : 2
}

/** Throws `INVALID` unless `value` is an integer from `least` to 2^53-1. */
export function checkIndex(field: string, value: unknown, least: number): asserts value is number {
  if (Number.isSafeInteger(value) && (value as number) >= least) return
  throw invalid(field, `be an integer from ${least} to ${Number.MAX_SAFE_INTEGER}`, value)
}
