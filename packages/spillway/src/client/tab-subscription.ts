import type { Clock } from '../core/clock.ts'
import { parseCursor } from '../core/cursor.ts'
import { type ErrorCode, errorTable, lagError, SpillwayError } from '../core/errors.ts'
import type { Batch } from '../core/event.ts'
import type { Signal } from '../core/signal.ts'
import type { Subscription } from '../core/subscription.ts'
import { WaitingSubscription } from '../core/waiting-subscription.ts'
import { type Controller, host, randomId } from './runtime.ts'
import type { Status } from './subscription.ts'
import {
  type Call,
  channelOf,
  closeLater,
  type LeaderPosition,
  type LeaderStatus,
  type Locks,
  openTabChannel,
  type TabChannel,
  type Told,
  windowUnits,
} from './tab-channel.ts'
import { TabLeader } from './tab-leader.ts'
import { TabQueue } from './tab-queue.ts'

/** How a {@link TabSubscription} finds those who want the same, and reads by itself. */
export interface TabRoute {
  /** The name under which it shares, or `undefined` to share with nobody. */
  readonly share: Promise<string | undefined>
  readonly locks: Locks
  readonly clock: Clock
  /** Begins a subscription of its own after `cursor`, or with what is new; `undefined`: where the reader asked to start. Losses are told, as batches. */
  open(cursor: 'latest' | (string & {}) | undefined, onStatus: (status: Status) => void): Subscription
  readonly isLatest: boolean
  readonly onLag: 'fail' | 'skip'
  readonly onStatus: ((status: Status) => void) | undefined
}

/** Milliseconds between two questions whether the leading tab is still there, more or less. */
const askEvery = 10_000
/** So many questions without an answer, and its place is taken: a browser may have stopped a tab that holds a lock. */
const mostUnanswered = 3

/** Who lags by more reads on by itself: what is new would only wait for it. */
const nearBatches = 1024

/**
 * A subscription that shares its connection with those of other tabs that want the same. One of them, chosen by a lock, leads.
 *
 * Level    It takes what the leader sends, from a queue of bounded size.
 * Alone    It reads by a connection of its own: what it asked for from before the leader's position, and what it did not
 *          get in time. It is level again as soon as its position is one between which and the end of the queue nothing
 *          is missing. Then its own connection ends.
 * Leading  When the leader goes, the next one goes on after the last batch that it got itself.
 */
export class TabSubscription extends WaitingSubscription {
  readonly ready: Promise<void>
  readonly #route: TabRoute
  readonly #id = randomId()
  readonly #stopListening: () => void
  #share = ''
  #calls: TabChannel | undefined
  #own: TabChannel | undefined
  #election: Controller | undefined
  #leads: TabLeader | undefined
  #endLead: (() => void) | undefined
  #stopAsking: (() => void) | undefined
  #unanswered = 0
  /** Counts the times that it asked to join: answers to an earlier one are passed over. */
  #join = 0
  #isAsking = false
  /** Whom it has joined, and the next message that it must get. */
  #leader: string | undefined
  #n = 0
  /** What the leader sent: while level what is read next, else what lies ahead. */
  #queue: TabQueue | undefined
  #isLevel = false
  #alone: Subscription | undefined
  /** After what was taken. */
  #at: string | undefined
  #newest = 0
  /** Units that were taken, and of which the leader does not know. */
  #done = 0
  #entry: { resolve(): void; reject(reason: unknown): void } | undefined
  #ended = false
  #error: unknown

  /** `start`: the cursor that the reader begins after, where it has one. */
  constructor(route: TabRoute, start: string | undefined, signal: Signal | undefined) {
    super()
    this.#route = route
    this.#at = start
    this.ready = new Promise((resolve, reject) => {
      this.#entry = { resolve, reject }
    })
    this.ready.catch(ignore)
    const abort = () => this.fail(signal?.reason)
    signal?.addEventListener('abort', abort)
    this.#stopListening = () => signal?.removeEventListener('abort', abort)
    if (!route.isLatest) this.#goAlone(undefined)
    route.share.then(
      (share) => this.#meet(share),
      () => this.#meet(undefined),
    )
  }

  get cursor(): string {
    if (this.#isLevel && this.#queue?.isEmpty) return this.#queue.end
    return this.#alone?.cursor || this.#at || ''
  }

  get lag(): number {
    const { cursor } = this
    if (this.#alone) return this.#alone.lag
    return cursor === '' ? 0 : Math.max(0, this.#newest - parseCursor(cursor).index)
  }

  get closed(): boolean {
    return this.#ended
  }

  take(): Batch | undefined {
    if (this.#ended) throw this.#error
    if (this.#isLevel) return this.#takeSent()
    // Its wait takes what comes.
    if (this.waiting) return undefined
    const batch = this.#takeAlone()
    if (batch) return this.#give(batch)
    this.#approach()
    return this.#isLevel ? this.#takeSent() : undefined
  }

  protected override waitBegan(): void {
    this.#waitAlone()
  }

  /** Begins to share. */
  #meet(share: string | undefined): void {
    if (this.#ended) return
    if (share === undefined) {
      if (!this.#alone) this.#goAlone(this.#at)
      return
    }
    this.#share = share
    this.#own = openTabChannel(channelOf(share, this.#id))
    this.#own.onmessage = ({ data }) => this.#hear(data as Told)
    this.#calls = openTabChannel(share)
    this.#calls.onmessage = ({ data }) => this.#overhear(data as Call)
    this.#stand(false)
    this.#ask()
    if (!this.#alone) this.#hello()
  }

  /** Stands for election. `isForced`: takes the place of a leader that does not answer. */
  #stand(isForced: boolean): void {
    this.#election?.abort()
    const controller = new host.AbortController()
    this.#election = controller
    const options = isForced ? ({ steal: true } as const) : { signal: controller.signal }
    const lead = () => (this.#election === controller && !this.#ended ? this.#lead() : Promise.resolve())
    this.#route.locks.request(this.#share, options, lead).then(ignore, () => {
      // Its place was taken, or it gave up.
      if (this.#election !== controller || this.#ended) return
      this.#abdicate()
      this.#stand(false)
    })
  }

  /** Holds the connection for all until it ends, or this subscription does. */
  #lead(): Promise<void> {
    const from = this.#isLevel ? this.#queue?.end : undefined
    return new Promise((resolve) => {
      this.#endLead = resolve
      const open = (onStatus: (status: Status) => void) => this.#route.open(from ?? 'latest', onStatus)
      const leads = new TabLeader(this.#share, open, () => this.#route.clock.monotonic())
      this.#leads = leads
      leads.run().catch((error: unknown) => {
        if (this.#leads === leads) this.fail(error)
      })
      // Not every channel is heard by who owns another in the same tab before it is asked.
      this.#overhear({ kind: 'leader', leader: leads.id })
    })
  }

  #abdicate(): void {
    const leads = this.#leads
    this.#leads = undefined
    leads?.stop()
    this.#endLead?.()
    this.#endLead = undefined
  }

  #hello(): void {
    if (!this.#calls || this.#isAsking) return
    this.#isAsking = true
    this.#leader = undefined
    this.#done = 0
    const units = this.#isLevel ? this.#queue?.units : 0
    this.#call({ kind: 'hello', id: this.#id, join: ++this.#join, units: units ?? 0 })
  }

  /** Looks now and then whether the leader is still there, and where it stands. */
  #ask(): void {
    this.#stopAsking = this.#route.clock.after(askEvery * (0.75 + Math.random() / 2), () => {
      if (this.#ended) return
      this.#askOnce()
      this.#approach()
      this.#ask()
    })
  }

  #askOnce(): void {
    const isJoined = this.#leader !== undefined
    if (!isJoined && !this.#isAsking && this.#alone) return
    if (this.#unanswered++ >= mostUnanswered) {
      this.#unanswered = 0
      if (!this.#leads) this.#stand(true)
    }
    if (isJoined) {
      this.#call({ kind: 'ping', id: this.#id, join: this.#join })
      return
    }
    this.#isAsking = false
    this.#hello()
  }

  #overhear(call: Call): void {
    if (call.kind !== 'leader' || this.#ended || call.leader === this.#leader) return
    this.#unanswered = 0
    this.#isAsking = false
    this.#lose()
    if (this.#alone) this.#approach()
    else this.#hello()
  }

  #hear(told: Told): void {
    if (this.#ended || told.join !== this.#join) return
    this.#unanswered = 0
    if (told.kind === 'welcome') this.#welcome(told.leader, told.position)
    else if (told.kind === 'status') this.#hearStatus(told.status)
    else if (told.leader === this.#leader) this.#follow(told)
    this.#hand()
  }

  #welcome(leader: string, position: LeaderPosition): void {
    this.#isAsking = false
    // What was sent before goes first; after that it joins again, unless it misses nothing.
    if (this.#isLevel && this.#queue && !this.#queue.isEmpty && this.#queue.end !== position.cursor) {
      this.#call({ kind: 'bye', id: this.#id })
      return
    }
    this.#leader = leader
    this.#n = 0
    this.#moveTo(position)
    if (this.#isLevel && this.#queue?.end === position.cursor) return
    const at = this.#isLevel ? this.#queue?.end : this.#at
    this.#isLevel = false
    this.#queue = new TabQueue(position.cursor)
    this.#at = at
    if (at === undefined && !this.#alone) this.#at = position.cursor
    this.#approach()
    if (!this.#isLevel && !this.#alone) this.#goAlone(this.#at)
  }

  #follow(told: Exclude<Told, { kind: 'welcome' | 'status' }>): void {
    if (told.kind === 'lost' || told.n !== this.#n || !this.#queue) {
      this.#lose()
      if (this.#isLevel && this.#queue?.isEmpty) this.#hello()
      return
    }
    this.#moveTo(told.position)
    if (told.kind === 'pong') {
      this.#queue.moveOn(told.position.cursor)
    } else {
      this.#n++
      this.#queue.push(told.items, told.position.cursor)
    }
    this.#approach()
  }

  #moveTo({ cursor, newest }: LeaderPosition): void {
    // After the end of a history its indexes are no measure.
    this.#newest = Math.max(newest, parseCursor(cursor).index)
  }

  /** Nothing more comes from the leader. What it sent is read where there is nothing between. */
  #lose(): void {
    this.#leader = undefined
    if (!this.#isLevel) this.#queue = undefined
  }

  /**
   * Becomes level if nothing is missing, or asks the leader for that once it is near. Not while a batch is between its own
   * connection and whoever waits, which lasts until the end of a turn.
   */
  #approach(): void {
    if (this.#isLevel || this.#ended) return
    const at = this.#alone ? this.#alone.cursor : this.#at
    if (at === undefined || at === '') return
    const units = this.#queue?.meet(at)
    if (units !== undefined) {
      this.#at = at
      this.#isLevel = true
      this.#sendDone(units)
      this.#leaveAlone()
      this.#arrive(at)
      return
    }
    if (this.#leader === undefined && (this.#alone?.lag ?? 0) < nearBatches) this.#hello()
  }

  /** The position is known: readers may count on it. */
  #arrive(cursor: string): void {
    if (!this.#entry) return
    this.#entry.resolve()
    this.#entry = undefined
    this.#tell({ state: 'open', cursor })
  }

  #goAlone(cursor: string | undefined): void {
    const alone: Subscription = this.#route.open(cursor, (status) => {
      // It tells of its first attempt before it is there.
      if (this.#alone !== undefined && this.#alone !== alone) return
      if (status.state !== 'closed') this.#tell(status)
    })
    if (this.#ended) {
      alone.close()
      return
    }
    this.#alone = alone
    alone.ready.then(
      () => {
        if (this.#alone !== alone) return
        this.#entry?.resolve()
        this.#entry = undefined
        // In a later turn: a batch that came with the first message is on its way to whoever waits, and the connection's
        // cursor is behind it already.
        this.#route.clock.defer(() => {
          this.#approach()
          this.#hand()
        })
      },
      (error: unknown) => {
        if (this.#alone === alone) this.fail(error)
      },
    )
    this.#waitAlone()
  }

  #leaveAlone(): void {
    const alone = this.#alone
    this.#alone = undefined
    alone?.close()
  }

  #takeAlone(): Batch | undefined {
    const alone = this.#alone
    try {
      return alone?.take()
    } catch (error) {
      this.fail(error)
      throw error
    }
  }

  /** Whoever waits does so at the connection of its own, if there is one. */
  #waitAlone(): void {
    const alone = this.#alone
    const { waiting } = this
    if (!alone || !waiting) return
    alone.next(this.signal ? { signal: this.signal } : {}).then(
      (batch) => this.#hand(batch),
      (error: unknown) => {
        // An aborted wait takes nothing, and a connection that was left has nothing to say.
        if (this.#alone === alone && this.waiting === waiting && !this.signal?.aborted) this.fail(error)
      },
    )
  }

  #takeSent(): Batch | undefined {
    const item = this.#queue?.shift()
    if (!item) {
      if (this.#leader === undefined) this.#hello()
      return undefined
    }
    this.#sendDone(item.units)
    return this.#give(item.batch)
  }

  /** Tells the leader, now and then, that there is room again. */
  #sendDone(units: number): void {
    this.#done += units
    if (this.#done < windowUnits / 4 || this.#leader === undefined) return
    this.#call({ kind: 'done', id: this.#id, join: this.#join, units: this.#done })
    this.#done = 0
  }

  #give(batch: Batch): Batch {
    if (batch.gap && this.#route.onLag === 'fail') {
      const error = lagError(batch.gap, batch.cursor)
      this.fail(error)
      throw error
    }
    this.#at = batch.cursor
    return batch
  }

  /** `from`: what its own connection gave. Without it only what the leader sent: the wait at its own connection takes what comes there. */
  #hand(from?: Batch): void {
    if (!this.waiting || (!from && !this.#isLevel)) return
    if (!from) {
      this.deliver()
      return
    }
    try {
      this.resolveWait(this.#give(from))
    } catch (error) {
      this.rejectWait(error)
    }
  }

  #hearStatus(status: LeaderStatus): void {
    // While it reads by itself its own connection counts.
    if (this.#alone) return
    if (status.state !== 'waiting') {
      // It is open to this reader once it has joined.
      if (status.state !== 'open' || !this.#entry) this.#tell(status)
      return
    }
    const { code, message } = status.error
    const known = Object.hasOwn(errorTable, code) ? (code as ErrorCode) : 'INTERNAL'
    this.#tell({ ...status, error: new SpillwayError(known, message) })
  }

  #call(call: Call): void {
    this.#calls?.postMessage(call)
  }

  /** Ends the subscription, at once. */
  fail(error: unknown): void {
    if (this.#ended) return
    this.#at = this.cursor
    this.#ended = true
    this.#error = error
    this.#isLevel = false
    this.#queue = undefined
    this.#stopAsking?.()
    this.#leaveAlone()
    this.#abdicate()
    this.#election?.abort()
    this.#call({ kind: 'bye', id: this.#id })
    if (this.#calls) closeLater(this.#calls)
    this.#own?.close()
    this.#stopListening()
    this.#entry?.reject(error)
    this.#entry = undefined
    this.rejectWait(error)
    this.#tell({ state: 'closed', error })
  }

  #tell(status: Status): void {
    try {
      this.#route.onStatus?.(status)
    } catch (error) {
      // The reader's own listener failed: that is the end of this reader.
      this.fail(error)
    }
  }
}

function ignore(): void {}
