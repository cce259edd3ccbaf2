import { EventBuffer, type EventBufferOptions, type Position } from './buffer.ts'
import { type Clock, systemClock } from './clock.ts'
import { formatCursor, parseCursor } from './cursor.ts'
import { invalid, SpillwayError, shown, wrongOption } from './errors.ts'
import {
  type BatchInput,
  checkIndex,
  type EventInput,
  type EventOf,
  encodeEvents,
  type InputOf,
  type PendingBatch,
  type StoredBatch,
  type StoredEvent,
  type TopicMap,
} from './event.ts'
import { Filter, FilterIndex, type FilterOptions } from './filter.ts'
import type { Appended, AppendOptions, Log, LogStart, RightsChange } from './log.ts'
import { memoryLog } from './memory-log.ts'
import type { Delivery } from './reader.ts'
import { type Access, accessOf, everything, Permit, type Rights, RightsChanges } from './rights.ts'
import type { Signal } from './signal.ts'
import { BrokerSubscription, beforeBuffer, type Source, type Start, type Subscription } from './subscription.ts'
import { checkNames } from './topics.ts'

export interface BrokerOptions extends Pick<EventBufferOptions<StoredBatch>, 'capacity' | 'maxAge' | 'clock'> {
  /** UTF-8 bytes of payloads and names that are kept at most; a larger batch is refused. 0: no limit. Default 64 MiB. */
  maxBytes?: number | undefined
  /** Where batches are kept. Default: memory, with the limits of this broker. The broker closes it when it is closed. */
  log?: Log | undefined
  /**
   * What somebody may read and publish. Called for every subscription and for what is published over HTTP, and again when
   * rights may have changed. Throw or reject to refuse, best with a `SpillwayError` of code `UNAUTHORIZED` or `FORBIDDEN`.
   * It may take its time: it delays nobody but whom it is asked for. Default: everybody may do all.
   */
  authorize?: ((request: AccessRequest) => Rights | Promise<Rights>) | undefined
  /** Which published events say that rights have changed: they count for all that comes after them. Default: none. */
  rightsEvents?: RightsEvents | undefined
}

/** Who wants to do what. */
export interface AccessRequest {
  /** `''` if none was given. */
  readonly token: string
  readonly action: 'read' | 'publish'
  /** The topics and keys that are to be read, as in {@link FilterOptions}. */
  readonly topics?: FilterOptions['topics']
  readonly namespaces?: FilterOptions['namespaces']
}

/** Events that say that rights have changed, by their topics. Nobody must be allowed to publish them who may not do so. */
export interface RightsEvents {
  /** About the subject that is the key of the event: a type that ends in `Deleted` revokes, any other has it asked for again. */
  readonly subjects: string
  /** About rights of many, as policies and roles are: all are asked for again. */
  readonly everybody: readonly string[]
}

/** The rights events of Nomad. [Nomad's API, event stream] */
export const nomadRightsEvents: RightsEvents = { subjects: 'ACLToken', everybody: ['ACLPolicy', 'ACLRole'] }

/**
 * Where a subscription starts. `latest`: only what is new. `earliest`: all that is kept. A cursor or an index: what comes
 * after it. `{ at }`: the first batch at or after an index, or the newest if there is none; with `exact`, that very index.
 * `{ since }`: the first batch published at or after a time, in Unix milliseconds. `{ last }`: the newest so many batches.
 */
export type From =
  | 'latest'
  | 'earliest'
  | (string & {})
  | number
  | { readonly at: number; readonly exact?: boolean }
  | LogStart

export interface SubscribeOptions extends FilterOptions {
  /** Default `latest`. */
  from?: From | undefined
  /** Throws `NOT_KEPT` instead of starting with a gap, where the cursor or index is no longer kept. Default: the gap is told. */
  exact?: boolean | undefined
  /** `fail`, the default: a loss rejects with `LAGGED`. `skip`: it is told as a batch with a `gap`, and the stream goes on. */
  onLag?: 'fail' | 'skip' | undefined
  /** Ends the subscription; a waiting `next` rejects with its reason. */
  signal?: Signal | undefined
  /** Whom `authorize` knows this reader by. Default `''`. */
  token?: string | undefined
}

export interface PublishOptions {
  /**
   * Names this publish, 1 to 256 characters: repeated with the same id after its answer was lost, it stores nothing and
   * gives the index of the first time. See {@link AppendOptions.key} for how long ids are remembered.
   */
  id?: string | undefined
  /** Publishes only if this is the newest index. */
  expected?: number | undefined
}

/** What a broker holds at a moment. */
export interface BrokerStatus {
  readonly epoch: string
  /** `undefined` while the buffer is empty. */
  readonly oldestIndex: number | undefined
  readonly newestIndex: number
  /** Resumes after the newest index. */
  readonly cursor: string
  /** The newest index that neither buffer nor log keeps. */
  readonly floor: number
  /** Batches in the buffer. */
  readonly retained: number
  /** UTF-8 bytes of their payloads and names. */
  readonly bytes: number
  readonly subscriptions: number
}

/** Publishes to a log and gives what is stored there to any number of subscriptions. */
export interface Broker<Topics extends object = TopicMap> {
  readonly status: BrokerStatus
  /**
   * Publishes events under one index and resolves with it once the log's level of durability is reached. An array without
   * events changes nothing and gives the newest index. `index` asks for one above the newest, which may skip numbers.
   * Rejects with `INVALID`, `INDEX_ORDER`, `INDEX_MISMATCH`, `KEY_REUSED`, `TOO_LARGE`, `OVERLOADED`, `LOG_FAILED` or,
   * after `close`, `SHUTDOWN`; nothing is stored then.
   */
  publish(
    events: InputOf<Topics> | readonly InputOf<Topics>[],
    options?: PublishOptions & { index?: number | undefined },
  ): Promise<number>
  /** Publishes several batches, each under an index of its own: all or, when it rejects, none. */
  publishAll(batches: readonly BatchInput<InputOf<Topics>>[], options?: PublishOptions): Promise<readonly number[]>
  /**
   * Starts a subscription at once; its `ready` and `next` reject if access is refused.
   * Throws `INVALID` for bad options, `NOT_KEPT` where `exact` finds a loss, `SHUTDOWN` after `close`.
   */
  subscribe<Wanted extends (keyof Topics & string) | '*' = '*'>(
    options?: Omit<SubscribeOptions, 'topics'> & {
      topics?: { readonly [Topic in Wanted]: readonly string[] } | undefined
    },
  ): Subscription<EventOf<'*' extends Wanted ? Topics : Pick<Topics, Wanted & keyof Topics>>>
  /**
   * Ends all subscriptions of a subject with `REVOKED`, at once, whatever `authorize` would say. A subject is the token
   * where `authorize` names none. First see to it that `authorize` refuses: they may come back.
   */
  revoke(subject: string): void
  /**
   * Asks `authorize` again: for the subscriptions of a subject, or for all. From this moment until it has answered they
   * get nothing that is published later; if it refuses they end with `REVOKED`, otherwise they go on with what it allows.
   */
  recheck(subject?: string): void
  /** Resolves when waiting readers have been handed all that was published so far. */
  flushed(): Promise<void>
  /** Ends all subscriptions with `SHUTDOWN` and closes the log. Publishing rejects from here on. Harmless when done twice. */
  close(): Promise<void>
}

/** A broker of any topics. */
export type AnyBroker = Pick<Broker, 'status' | 'close'>

const defaultMaxBytes = 64 * 2 ** 20
/** How often tokens are looked at for expiry, in milliseconds: less than the second that is promised. */
const expiryInterval = 500

/** Throws `CONFIG` that names the option. */
export function createBroker<Topics extends object = TopicMap>(options: BrokerOptions = {}): Broker<Topics> {
  // The topics exist only in the types: whatever passed publish has one of them.
  return new LocalBroker(options) as unknown as Broker<Topics>
}

/** A subscription whose access somebody vouches for. */
interface Member {
  readonly request: AccessRequest
  checking: boolean
  readonly stopListening: (() => void) | undefined
}

/** The broker that {@link createBroker} makes. Its subscriptions also have the face without promises that sockets use. */
export class LocalBroker implements Omit<Broker, 'subscribe'> {
  readonly #log: Log
  readonly #buffer: EventBuffer<StoredBatch>
  readonly #clock: Clock
  readonly #maxBytes: number
  readonly #authorize: BrokerOptions['authorize']
  readonly #rightsEvents: RightsEvents | undefined
  readonly #changes = new RightsChanges()
  readonly #members = new Map<BrokerSubscription, Member>()
  readonly #leaders = new Set<BrokerSubscription>()
  readonly #index = new FilterIndex<BrokerSubscription>()
  readonly #dispatched: Position
  readonly #source: Source
  readonly #expiring = new Set<BrokerSubscription>()
  #stopExpiry: (() => void) | undefined
  readonly #stopFollowing: () => void
  readonly #closeListeners: (() => void)[] = []
  #closed: Promise<void> | undefined

  constructor({ capacity, maxBytes, maxAge, log, authorize, rightsEvents, clock = systemClock }: BrokerOptions) {
    if (authorize !== undefined && typeof authorize !== 'function')
      throw wrongOption('authorize', 'a function', authorize)
    checkRightsEvents(rightsEvents)
    const limits = { capacity, maxBytes: maxBytes ?? defaultMaxBytes, maxAge, clock }
    this.#log = log ?? memoryLog(limits)
    this.#buffer = new EventBuffer<StoredBatch>({ ...limits, sizeOf: (batch) => batch.bytes, floor: this.#log.last })
    this.#maxBytes = limits.maxBytes || Number.POSITIVE_INFINITY
    this.#clock = clock
    this.#authorize = authorize
    this.#rightsEvents = rightsEvents
    this.#dispatched = this.#buffer.locate('latest')
    this.#source = {
      log: this.#log,
      buffer: this.#buffer,
      clock,
      index: this.#index,
      dispatched: this.#dispatched,
      ended: this.#remove,
    }
    this.#buffer.follow((delivery) => this.#dispatch(delivery))
    this.#stopFollowing = this.#log.follow((batch) => this.#take(batch), {
      missed: (upTo) => this.#buffer.skip(upTo),
      rights: (change) => this.#heed(change),
      ended: () => void this.close(),
    })
  }

  get status(): BrokerStatus {
    this.#catchUp()
    const { oldestIndex, newestIndex, floor, retained, bytes } = this.#buffer
    return {
      epoch: this.#log.epoch,
      oldestIndex,
      newestIndex,
      cursor: formatCursor(this.#log.epoch, newestIndex),
      floor: Math.min(floor, this.#log.floor),
      retained,
      bytes,
      subscriptions: this.#members.size,
    }
  }

  async publish(
    events: EventInput | readonly EventInput[],
    { index, ...options }: PublishOptions & { index?: number | undefined } = {},
  ): Promise<number> {
    const list = Array.isArray(events) ? (events as readonly EventInput[]) : [events as EventInput]
    const batch = index === undefined ? { events: list } : { events: list, index }
    const [published] = await this.publishAll([batch], options)
    return published ?? this.#log.last
  }

  async publishAll(batches: readonly BatchInput[], options: PublishOptions = {}): Promise<readonly number[]> {
    return (await this.append(batches, options)).indexes
  }

  /**
   * As `publishAll`; tells also whether it was a repetition. `owner`: whose ids these are, each has its own.
   * Rejects with `FORBIDDEN` for what `permit` does not allow.
   */
  async append(
    batches: readonly BatchInput[],
    {
      id,
      expected,
      owner = '',
      permit = Permit.everything,
    }: PublishOptions & { owner?: string | undefined; permit?: Permit } = {},
  ): Promise<Appended> {
    if (this.#closed) throw shutdownError()
    if (id !== undefined) checkId(id)
    if (expected !== undefined) checkIndex('expected', expected, 0)
    const pending: PendingBatch[] = []
    if (!Array.isArray(batches)) throw invalid('batches', 'be an array of { events }', batches)
    for (const [position, batch] of batches.entries()) {
      const called = batch?.name ?? (batches.length > 1 ? `batches[${position}]` : undefined)
      if (!Array.isArray(batch?.events)) throw invalid(called ?? 'batch', 'be an object with an array of events', batch)
      const { events, index } = batch
      const encoded = this.#checkSize(encodeEvents(events, index, called))
      checkPermit(permit, encoded)
      if (events.length > 0) pending.push(encoded)
    }
    if (pending.length === 0) return { indexes: [], duplicate: false }
    try {
      return await this.#log.append(pending, { key: id === undefined ? undefined : keyOf(id, owner), expected })
    } catch (cause) {
      if (cause instanceof SpillwayError) throw cause
      throw new SpillwayError('LOG_FAILED', 'The log could not store the events. None was published.', { cause })
    }
  }

  /** `compiled`: the filter that the options describe, where many share one. */
  subscribe(options: SubscribeOptions & { compiled?: Filter } = {}): BrokerSubscription {
    if (this.#closed) throw shutdownError()
    const { from = 'latest', exact = false, onLag = 'fail', signal, token = '' } = options
    if (onLag !== 'fail' && onLag !== 'skip') throw invalid('onLag', 'be "fail" or "skip"', onLag)
    if (typeof token !== 'string') throw invalid('token', 'be a string', token)
    if (signal?.aborted) throw signal.reason
    this.#catchUp()
    const wanted = logStart(from)
    const held = wanted && 'last' in wanted ? this.#locateLast(wanted.last) : undefined
    const filter = options.compiled ?? new Filter(options)
    const place = wanted ? 'earliest' : (from as Exclude<From, LogStart>)
    const start = held ?? this.#locate(place)
    // Another server of the log may have told it more than this one knows.
    const catchingUp = start.gap?.reason === 'truncated' ? this.#log.catchUp?.(start.gap.after) : undefined
    if (exact && !catchingUp) this.#checkKept(start, from)
    const subscription = new BrokerSubscription(this.#source, filter, start, onLag)
    const member: Member = {
      request: { token, action: 'read', topics: options.topics, namespaces: options.namespaces },
      checking: false,
      stopListening: signal && onAbort(signal, () => subscription.fail(signal.reason)),
    }
    if (!this.#authorize) subscription.subject = token
    this.#members.set(subscription, member)
    this.#index.add(subscription)
    if (this.#authorize) {
      subscription.awaitAccess()
      void this.#check(subscription, member, (error) => error)
    }
    if (wanted && !held) subscription.awaitStart(this.#log.locate(wanted).then((index) => this.#afterFound(index)))
    if (catchingUp) {
      const found = catchingUp.then(() => this.#locate(place))
      subscription.awaitStart(exact ? found.then((start) => this.#checkKept(start, from)) : found)
    }
    return subscription
  }

  revoke(subject: string): void {
    this.#tell({ subject, isRevoked: true })
  }

  recheck(subject?: string): void {
    this.#tell({ subject, isRevoked: false })
  }

  /** What `token` may do. Rejects as `authorize` does, or with `EXPIRED`. */
  async access(
    token: string,
    action: AccessRequest['action'],
  ): Promise<Access & { readonly isCurrent: () => boolean }> {
    // Where nobody looks at tokens they name nobody.
    if (!this.#authorize) return { ...accessOf(everything, ''), isCurrent: () => true }
    for (;;) {
      const { version } = this.#changes
      const access = accessOf(await this.#authorize({ token, action }), token)
      if (this.#changes.since(version, access.subject)) continue
      if (this.#clock.now() >= access.expiresAt) throw new SpillwayError('EXPIRED', 'The token has expired.')
      return {
        ...access,
        isCurrent: () =>
          this.#catchUp() && !this.#changes.since(version, access.subject) && this.#clock.now() < access.expiresAt,
      }
    }
  }

  /** A subscription without an owner, level, that reads for others which want the same as `like` and answer for their access. */
  lead(like: BrokerSubscription): BrokerSubscription {
    const leader = new BrokerSubscription(this.#source, like.filter, this.#buffer.locate('latest'), 'skip')
    this.#leaders.add(leader)
    this.#index.add(leader)
    return leader
  }

  dismiss(leader: BrokerSubscription): void {
    this.#leaders.delete(leader)
    this.#index.delete(leader)
  }

  /** Calls `listener` once subscriptions have ended because of `close`. */
  onClose(listener: () => void): void {
    this.#closeListeners.push(listener)
  }

  flushed(): Promise<void> {
    return this.#buffer.flushed()
  }

  close(): Promise<void> {
    this.#closed ??= this.#shutDown()
    return this.#closed
  }

  async #shutDown(): Promise<void> {
    this.#stopExpiry?.()
    const message = 'Subscription closed by server, client should resubscribe.'
    for (const subscription of [...this.#members.keys()]) {
      subscription.fail(new SpillwayError('SHUTDOWN', message, { cursor: subscription.cursor }))
    }
    for (const listener of this.#closeListeners) listener()
    this.#stopFollowing()
    this.#buffer.close()
    await this.#log.close()
  }

  #tell(change: RightsChange): void {
    if (this.#log.announce) this.#log.announce(change)
    else this.#heed(change)
  }

  #heed({ subject, isRevoked }: RightsChange): void {
    this.#changes.note(subject)
    if (isRevoked && subject !== undefined) this.#revoke(subject)
    else this.#recheck(subject)
  }

  #revoke(subject: string): void {
    for (const [subscription, member] of this.#members) {
      if ((subscription.subject ?? member.request.token) !== subject) continue
      subscription.fail(revokedError('The rights of this subscription were revoked.', subscription))
    }
  }

  #recheck(subject: string | undefined): void {
    if (!this.#authorize) return
    for (const [subscription, member] of this.#members) {
      // Who is being asked for may turn out to be the one: the answer tells.
      if (subject !== undefined && subscription.subject !== subject) continue
      subscription.doubt(this.#buffer.newestIndex)
      if (member.checking) continue
      const refuse = (cause: unknown) => withdrawn(subscription, cause)
      void this.#check(subscription, member, refuse)
    }
  }

  /** Asks until an answer is about the present, and lets the subscription go on or end with it. */
  async #check(subscription: BrokerSubscription, member: Member, refusal: (cause: unknown) => unknown): Promise<void> {
    member.checking = true
    try {
      let access: Access
      let version: number
      do {
        version = this.#changes.version
        access = accessOf(await this.#authorize?.(member.request), member.request.token)
      } while (this.#changes.since(version, access.subject))
      if (subscription.closed) return
      if (this.#clock.now() >= access.expiresAt) {
        subscription.expire()
        return
      }
      checkReach(access, member.request)
      subscription.subject = access.subject
      this.#limitLife(subscription, access.expiresAt)
      subscription.grant(access.read)
    } catch (cause) {
      subscription.fail(refusal(cause))
    } finally {
      member.checking = false
    }
  }

  #limitLife(subscription: BrokerSubscription, expiresAt: number): void {
    subscription.expiresAt = expiresAt
    if (expiresAt === Number.POSITIVE_INFINITY) {
      this.#expiring.delete(subscription)
      return
    }
    this.#expiring.add(subscription)
    this.#stopExpiry ??= this.#clock.after(expiryInterval, () => this.#expire())
  }

  // A timer per token would trust a clock that can be set; looking twice a second does not.
  #expire(): void {
    this.#stopExpiry = undefined
    const now = this.#clock.now()
    for (const subscription of this.#expiring) if (now >= subscription.expiresAt) subscription.expire()
    if (this.#expiring.size > 0) this.#stopExpiry = this.#clock.after(expiryInterval, () => this.#expire())
  }

  /** A log at a distance tells its followers what it has before it says which index is the newest. */
  #catchUp(): boolean {
    return this.#log.last >= 0
  }

  /** What others appended to the log may be more than this broker keeps in memory; its readers then find it in the log. */
  #take(batch: StoredBatch): void {
    if (this.#rightsEvents) for (const event of batch.events) this.#heedEvent(event, this.#rightsEvents)
    if (batch.bytes <= this.#maxBytes) this.#buffer.append(batch)
    else this.#buffer.skip(batch.index)
  }

  /** Before the batch can be read: what it says counts for it, too. */
  #heedEvent({ topic, type, key }: StoredEvent, { subjects, everybody }: RightsEvents): void {
    if (everybody.includes(topic)) this.#heed({ subject: undefined, isRevoked: false })
    else if (topic === subjects) this.#heed({ subject: key, isRevoked: type.endsWith('Deleted') })
  }

  readonly #remove = (subscription: BrokerSubscription): void => {
    this.#members.get(subscription)?.stopListening?.()
    this.#members.delete(subscription)
    this.#index.delete(subscription)
    this.#expiring.delete(subscription)
  }

  /** Tells the level readers of what they want. */
  #dispatch({ batches, gap, end, index }: Delivery<StoredBatch>): void {
    const dispatched = this.#dispatched
    if (gap) for (const subscription of [...this.#members.keys(), ...this.#leaders]) subscription.unlevel()
    dispatched.place = end - batches.length
    for (const batch of batches) {
      for (const event of batch.events) this.#index.visit(event, this.#notify)
      dispatched.place++
      dispatched.index = batch.index
    }
    dispatched.index = index
  }

  readonly #notify = (subscription: BrokerSubscription): void => {
    subscription.notify(this.#dispatched.place + 1, this.#dispatched.index)
  }

  #checkSize(pending: PendingBatch): PendingBatch {
    if (pending.bytes <= this.#maxBytes) return pending
    throw new SpillwayError(
      'TOO_LARGE',
      `The batch has ${pending.bytes} bytes, maxBytes is ${this.#maxBytes}. Nothing was stored.`,
    )
  }

  /** Throws `NOT_KEPT` if a reader that starts there has missed something. */
  #checkKept(start: Start, from: From): Start {
    const { floor, newestIndex } = this.status
    if (!start.gap && start.index >= floor) return start
    const kept = floor < newestIndex ? `${floor + 1} to ${newestIndex}` : 'nothing'
    throw new SpillwayError('NOT_KEPT', `What follows ${shown(from)} is not all kept. Kept: ${kept}.`)
  }

  #locate(from: Exclude<From, LogStart>): Start {
    const buffer = this.#buffer
    if (typeof from === 'object' && from !== null) return this.#locateAt(from)
    if (from === 'latest') return buffer.locate('latest')
    if (from === 'earliest') return this.#after(Math.min(this.#log.floor, buffer.floor))
    if (typeof from !== 'string') return this.#after(from)
    const { epoch, index } = parseCursor(from)
    if (epoch === this.#log.epoch) return this.#after(index)
    const start = this.#locate('earliest')
    return { ...start, epoch, gap: { after: index, before: start.index + 1, reason: 'epoch' } }
  }

  /** After `index`: in the buffer, or before it where the log still has something. */
  #after(index: number): Start {
    const { floor, last } = this.#log
    // The log has it, and this broker is about to be told.
    if (index > this.#buffer.newestIndex && index <= last) return { place: this.#buffer.lastPlace, index }
    if (!(index < this.#buffer.floor) || floor >= this.#buffer.floor) return this.#buffer.locate(index)
    checkIndex('from', index, 0)
    return { place: beforeBuffer, index, reason: index < floor ? 'retention' : 'lag' }
  }

  /** The newest `count` batches, where the buffer holds them, or all that are kept. */
  #locateLast(count: number): Start | undefined {
    const { lastPlace, retained, floor } = this.#buffer
    if (count < retained) return { place: lastPlace - count, index: this.#buffer.indexAt(lastPlace - count) }
    return floor <= this.#log.floor ? this.#locate('earliest') : undefined
  }

  /** After an index that the log found, which it may know of before this broker does. */
  #afterFound(index: number): Start {
    const { newestIndex, lastPlace } = this.#buffer
    return index > newestIndex ? { place: lastPlace, index } : this.#after(index)
  }

  #locateAt({ at, exact = false }: { at: number; exact?: boolean }): Start {
    checkIndex('from.at', at, 0)
    if (at === 0) return this.#locate('earliest')
    const buffer = this.#buffer
    const place = Math.min(buffer.placeAtOrAfter(at), Math.max(buffer.lastPlace, buffer.firstPlace))
    if (exact && (buffer.at(place) === undefined || buffer.indexAt(place) !== at)) {
      const kept = `${buffer.oldestIndex ?? 'none'} to ${buffer.newestIndex}`
      throw new SpillwayError('NOT_KEPT', `Requested index not in buffer: ${at}. Kept: ${kept}.`)
    }
    if (at <= buffer.floor) return this.#after(at - 1)
    if (buffer.retained === 0) return this.#after(Math.max(this.#log.last - 1, this.#log.floor))
    return { place: place - 1, index: place > buffer.firstPlace ? buffer.indexAt(place - 1) : buffer.floor }
  }
}

/** The part of `from` that only the log can answer. Throws `INVALID`. */
function logStart(from: From): LogStart | undefined {
  if (typeof from !== 'object' || from === null) return undefined
  if ('since' in from) checkIndex('from.since', from.since, 0)
  else if ('last' in from) checkIndex('from.last', from.last, 0)
  else return undefined
  return from
}

/** An id has no control characters, so that no two owners can mean the same. */
function keyOf(id: string, owner: string): string {
  return owner === '' ? id : `${id}\0${owner}`
}

const maxIdLength = 256

/** Throws `INVALID` unless `id` can name a publish. */
function checkId(id: unknown): void {
  if (typeof id === 'string' && id.length > 0 && id.length <= maxIdLength && !/[\p{Cc}\p{Cs}]/u.test(id)) return
  throw invalid('id', `be a string of 1 to ${maxIdLength} characters without control characters`, id)
}

/** Throws `FORBIDDEN` for a topic of which nothing may be read: a stream of it would be silent for ever. */
function checkReach({ read }: Access, { topics = { '*': ['*'] } }: AccessRequest): void {
  const denied = Object.keys(topics).find((topic) => !read.reaches(topic))
  if (denied === undefined) return
  const what = denied === '*' ? 'anything' : `anything of topic ${shown(denied)}`
  throw new SpillwayError('FORBIDDEN', `These rights do not allow to read ${what}.`)
}

/** Throws `FORBIDDEN` that names the first event which may not be published. */
function checkPermit(permit: Permit, { events }: PendingBatch): void {
  const denied = permit.isEverything ? undefined : events.find((event) => !permit.mayPublish(event))
  if (!denied) return
  const { topic, key, namespace } = denied
  const where = namespace === '' ? '' : ` in namespace ${shown(namespace)}`
  const what = `topic ${shown(topic)} with key ${shown(key)}${where}`
  throw new SpillwayError('FORBIDDEN', `These rights do not allow to publish ${what}. Nothing was stored.`)
}

function checkRightsEvents(events: RightsEvents | undefined): void {
  if (events === undefined) return
  if (typeof events?.subjects !== 'string') throw wrongOption('rightsEvents.subjects', 'a topic', events?.subjects)
  checkNames('rightsEvents.everybody', events.everybody)
}

function onAbort(signal: Signal, listener: () => void): () => void {
  signal.addEventListener('abort', listener)
  return () => signal.removeEventListener('abort', listener)
}

function shutdownError(): SpillwayError {
  return new SpillwayError('SHUTDOWN', 'The broker was closed.')
}

/** Who asks again gets an answer, where it could not be given now. */
function withdrawn(subscription: BrokerSubscription, cause: unknown): SpillwayError {
  if (!(cause instanceof SpillwayError) || !cause.retryable) {
    return revokedError('Access was withdrawn.', subscription, cause)
  }
  return new SpillwayError(cause.code, cause.message, { cause, cursor: subscription.cursor })
}

function revokedError(message: string, { cursor }: BrokerSubscription, cause?: unknown): SpillwayError {
  return new SpillwayError('REVOKED', message, { cause, cursor })
}
