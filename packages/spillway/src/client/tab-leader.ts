import { parseCursor } from '../core/cursor.ts'
import type { Batch } from '../core/event.ts'
import type { Subscription } from '../core/subscription.ts'
import { randomId } from './runtime.ts'
import type { Status } from './subscription.ts'
import {
  type Call,
  channelOf,
  closeLater,
  type LeaderPosition,
  type LeaderStatus,
  openTabChannel,
  type TabChannel,
  type Told,
  unitsOf,
  windowUnits,
} from './tab-channel.ts'

/** What one message carries at the most. */
const packItems = 256
const packUnits = 2 ** 16

/** Milliseconds without a word after which a tab counts as gone. Browsers run the timers of hidden pages once a minute. */
const goneAfter = 180_000

interface Follower {
  readonly channel: TabChannel
  readonly join: number
  n: number
  /** Sent, and not done with. */
  units: number
  heardAt: number
}

/**
 * The tab that holds the connection: it reads the server's stream as it comes, and hands each batch to the tabs that joined.
 *
 * Memory  It keeps nothing. A tab has {@link windowUnits} on their way; one that is slower loses its place, and reads what
 *         it lacks by itself.
 * Holes   What a tab gets is counted, and goes on from the position that it was told when it joined.
 */
export class TabLeader {
  readonly id: string = randomId()
  readonly #share: string
  readonly #calls: TabChannel
  readonly #now: () => number
  readonly #followers = new Map<string, Follower>()
  readonly #subscription: Subscription
  #status: LeaderStatus = { state: 'connecting', attempt: 1 }
  #isOpen = false
  /** The position that all know. */
  #told = ''

  /** `open`: begins the subscription, and is given what is to be told of its connection. */
  constructor(share: string, open: (onStatus: (status: Status) => void) => Subscription, now: () => number) {
    this.#share = share
    this.#now = now
    this.#calls = openTabChannel(share)
    this.#calls.onmessage = ({ data }) => this.#hear(data as Call)
    this.#subscription = open((status) => this.#tellStatus(status))
  }

  /** Leads until the subscription ends, and rejects with its error. */
  async run(): Promise<void> {
    const subscription = this.#subscription
    try {
      this.#call({ kind: 'leader', leader: this.id })
      await subscription.ready
      this.#isOpen = true
      // Who asked before there was an answer asks again.
      this.#call({ kind: 'leader', leader: this.id })
      for (;;) this.#hand(await subscription.next())
    } finally {
      this.stop()
    }
  }

  /** Harmless when done twice. */
  stop(): void {
    this.#calls.onmessage = null
    closeLater(this.#calls)
    this.#subscription.close()
    for (const { channel } of this.#followers.values()) closeLater(channel)
    this.#followers.clear()
  }

  get #position(): LeaderPosition {
    const { cursor, lag } = this.#subscription
    return { cursor, newest: parseCursor(cursor).index + lag }
  }

  /** Hands on `batch` and what has come with it, in the turn in which it was taken: a tab that joins is told a position that holds for both. */
  #hand(first: Batch): void {
    const items: string[] = []
    let units = 0
    try {
      for (let batch: Batch | undefined = first; batch; ) {
        const text = JSON.stringify(batch)
        items.push(text)
        units += unitsOf(text)
        batch = items.length < packItems && units < packUnits ? this.#subscription.take() : undefined
      }
    } finally {
      // Also what came before an error.
      const position = this.#position
      this.#told = position.cursor
      for (const [id, follower] of this.#followers) {
        if (follower.units > windowUnits) {
          this.#lose(id, follower)
          continue
        }
        follower.units += units
        this.#tell(follower, { kind: 'items', n: follower.n++, items, position })
      }
    }
  }

  #hear(call: Call): void {
    if (call.kind === 'leader') return
    const follower = this.#followers.get(call.id)
    if (follower) follower.heardAt = this.#now()
    switch (call.kind) {
      case 'hello':
        this.#join(call.id, call.join, call.units)
        return
      case 'ping':
        this.#answer(call.id, call.join)
        return
      case 'done':
        if (follower?.join === call.join) follower.units -= call.units
        return
      case 'bye':
        follower?.channel.close()
        this.#followers.delete(call.id)
    }
  }

  #join(id: string, join: number, units: number): void {
    this.#followers.get(id)?.channel.close()
    this.#followers.delete(id)
    const channel = openTabChannel(channelOf(this.#share, id))
    const follower = { channel, join, n: 0, units, heardAt: this.#now() }
    if (this.#isOpen) {
      this.#followers.set(id, follower)
      this.#tell(follower, { kind: 'welcome', position: this.#position })
    }
    this.#tell(follower, { kind: 'status', status: this.#status })
    if (!this.#isOpen) closeLater(channel)
  }

  #answer(id: string, join: number): void {
    const follower = this.#followers.get(id)
    if (follower?.join === join) {
      const position = this.#position
      // All together: whoever leads next begins where it stands, and who stands elsewhere needs a connection of its own.
      const asking = position.cursor === this.#told ? [follower] : this.#followers.values()
      for (const each of asking) this.#tell(each, { kind: 'pong', n: each.n, position })
      this.#told = position.cursor
    } else {
      const channel = openTabChannel(channelOf(this.#share, id))
      this.#tell({ channel, join }, { kind: 'lost' })
      closeLater(channel)
    }
    const gone = this.#now() - goneAfter
    for (const [other, each] of this.#followers) if (each.heardAt < gone) this.#lose(other, each)
  }

  #lose(id: string, follower: Follower): void {
    this.#tell(follower, { kind: 'lost' })
    closeLater(follower.channel)
    this.#followers.delete(id)
  }

  #tellStatus(status: Status): void {
    if (status.state === 'closed') return
    this.#status =
      status.state === 'waiting'
        ? { ...status, error: { code: status.error.code, message: status.error.message } }
        : status
    for (const follower of this.#followers.values()) this.#tell(follower, { kind: 'status', status: this.#status })
  }

  #tell({ channel, join }: Pick<Follower, 'channel' | 'join'>, message: TellOf<Told>): void {
    channel.postMessage({ ...message, leader: this.id, join })
  }

  #call(call: Call): void {
    this.#calls.postMessage(call)
  }
}

type TellOf<Message> = Message extends Told ? Omit<Message, 'leader' | 'join'> : never
