import type { Position } from '../../core/buffer.ts'
import type { BrokerSubscription } from '../../core/subscription.ts'
import type { Encoder } from './encoder.ts'
import type { FanOut } from './fan-out.ts'
import { joined, type Piece, writeSize } from './sink.ts'
import type { EventStream } from './stream.ts'

/** What was new in one go, and where it leads. */
interface Part {
  readonly piece: Piece
  end: Position
}

/** How many bytes may be on their way through the members. Beyond, the group lets the buffer hold what is new. */
const maxUnsent = 4 * writeSize

/**
 * Streams that want the same, in the same format, and have read all. One subscription reads for all of them, and what it
 * finds in one go is made into bytes once and written to each in one plain loop.
 *
 * The loop stops when its time is over and goes on where it stopped. A member that waits for its turn meanwhile gets all
 * that has become new since its last one, in one write. A member whose connection does not take more leaves.
 */
export class LevelGroup {
  readonly encoder: Encoder
  readonly shape: string
  readonly leader: BrokerSubscription
  /** Whether it waits for a turn of the fan-out. */
  isQueued = false
  /** When all members had been sent something. */
  writtenAt = 0
  readonly #fanOut: FanOut
  readonly #members: EventStream[] = []
  /** Parts that some member has not been sent, oldest first; part n has number `#first + n`. */
  #parts: Part[] = []
  #unsent = 0
  #first = 1
  /** Where those stand that were sent all before `#first`. */
  #base: Position
  /** How many members have not been sent the newest part. */
  #behind = 0
  /** Whose turn it is. */
  #turn = 0
  /** What members have missed that were sent so much: number of the last part to the piece. */
  readonly #pieces = new Map<number, Piece>()

  /** A group of streams like `first`, for which `leader` reads, with the same filter and from where all has been read. */
  constructor(fanOut: FanOut, first: EventStream, leader: BrokerSubscription) {
    this.#fanOut = fanOut
    this.encoder = first.encoder
    this.shape = first.shape
    this.leader = leader
    this.#base = leader.position
    leader.onReady = () => fanOut.enqueueGroup(this)
  }

  get size(): number {
    return this.#members.length
  }

  /** Takes in a stream that has read all; everybody else is served first, so that it stands where the leader does. */
  join(stream: EventStream): boolean {
    // What the leader finds here it has not been told of yet, and nobody else will tell the members.
    while (this.#pull()) this.#fanOut.enqueueGroup(this)
    if (!this.leader.isLevel) return false
    stream.group = this
    stream.slot = this.#members.push(stream) - 1
    stream.sent = this.#head
    stream.subscription.suspend(stream)
    return true
  }

  /** Lets a stream go on by itself from where it stands. */
  leave(stream: EventStream): void {
    const position = this.positionOf(stream)
    if (stream.sent < this.#head) this.#behind--
    const last = this.#members.pop() as EventStream
    if (last !== stream) {
      this.#members[stream.slot] = last
      last.slot = stream.slot
    }
    stream.group = undefined
    stream.subscription.resume(position)
    if (this.#members.length === 0) this.#fanOut.dissolve(this)
  }

  /** Where a member stands: who has been sent all, where the leader does. */
  positionOf({ sent }: EventStream): Position {
    return sent === this.#head ? this.leader.position : (this.#parts[sent - this.#first]?.end ?? this.#base)
  }

  /** Sends to each member what it has not been sent. Answers whether all have all; `false`: the time was over. */
  deliver(deadline: number): boolean {
    this.#pull()
    const head = this.#head
    const now = this.#fanOut.wallTime()
    let writes = 0
    while (this.#behind > 0) {
      if (this.#turn >= this.#members.length) this.#turn = 0
      // Who leaves hands its place to the last member, whose turn it then is.
      const member = this.#members[this.#turn] as EventStream
      if (member.sent === head) this.#turn++
      else if (now >= member.subscription.expiresAt) member.subscription.expire()
      else {
        const piece = this.#since(member.sent)
        member.sent = head
        this.#behind--
        if (member.send(piece)) this.#turn++
        else this.leave(member)
        if ((++writes & 15) === 0 && this.#fanOut.now() > deadline) return false
      }
    }
    this.#forget()
    return !this.#pull()
  }

  /** The number of the newest part. */
  get #head(): number {
    return this.#first + this.#parts.length - 1
  }

  /** Reads what is new, up to one write's worth of it. Answers whether there was anything. */
  #pull(): boolean {
    if (this.#unsent >= maxUnsent) return false
    const before = this.leader.position
    const found: Piece[] = []
    let size = 0
    try {
      size = this.encoder.gather(this.leader, found)
    } catch {
      // Each finds by itself what is wrong, and says so to its peer.
      this.#disband()
      return false
    }
    if (size === 0) return false
    // What was passed over since the last part belongs to it: a sign of life may have told of it already.
    const last = this.#parts.at(-1)
    if (last) last.end = before
    else this.#base = before
    this.#parts.push({ piece: joined(found), end: this.leader.position })
    this.#unsent += size
    this.#behind = this.#members.length
    this.#pieces.clear()
    return true
  }

  #disband(): void {
    for (const member of [...this.#members]) {
      this.leave(member)
      this.#fanOut.enqueue(member)
    }
  }

  /** Everything after part `sent`, as one piece. */
  #since(sent: number): Piece {
    let piece = this.#pieces.get(sent)
    if (!piece) {
      piece = joined(this.#parts.slice(sent - this.#first + 1).map((part) => part.piece))
      this.#pieces.set(sent, piece)
    }
    return piece
  }

  /** All members have all. */
  #forget(): void {
    if (this.#parts.length === 0) return
    this.writtenAt = this.#fanOut.now()
    this.#first += this.#parts.length
    this.#parts = []
    this.#unsent = 0
    this.#pieces.clear()
  }
}
