import type { Position } from '../../core/buffer.ts'
import type { BrokerSubscription } from '../../core/subscription.ts'
import type { Encoder } from './encoder.ts'
import type { FanOut } from './fan-out.ts'
import { joined, type Piece } from './sink.ts'
import type { EventStream } from './stream.ts'

/** What was new in one go, and where it leads. */
interface Part {
  readonly piece: Piece
  end: Position
}

/** One write: everything up to part `last`. */
interface Write {
  readonly piece: Piece
  readonly last: number
}

/**
 * Streams that want the same, in the same format, and have read all. One subscription reads for all of them, and what it
 * finds in one go is made into bytes once and written to each in one plain loop.
 *
 * The loop stops when its time is over and goes on where it stopped. A member that waits for its turn meanwhile gets what
 * has become new since its last one, as much as one write may have of it. A member whose connection does not take more leaves.
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
  /** The next write for members that were sent so much: by the number of the last part. */
  readonly #writes = new Map<number, Write>()

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
        const { piece, last } = this.#after(member.sent)
        member.sent = last
        if (last === head) this.#behind--
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
    // Beyond, the buffer holds what is new.
    if (this.#unsent >= 4 * this.#fanOut.writeSize) return false
    const before = this.leader.position
    const found: Piece[] = []
    let size = 0
    try {
      size = this.encoder.gather(this.leader, this.#fanOut.writeSize, found)
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
    this.#writes.clear()
    return true
  }

  #disband(): void {
    for (const member of [...this.#members]) {
      this.leave(member)
      this.#fanOut.enqueue(member)
    }
  }

  /** What comes after part `sent`: as many parts as one write may have, and one at least. */
  #after(sent: number): Write {
    const made = this.#writes.get(sent)
    if (made) return made
    const pieces: Piece[] = []
    let room = this.#fanOut.writeSize
    for (const { piece } of this.#parts.slice(sent - this.#first + 1)) {
      if (pieces.length > 0 && piece.bytes.length > room) break
      pieces.push(piece)
      room -= piece.bytes.length
    }
    const write = { piece: joined(pieces), last: sent + pieces.length }
    this.#writes.set(sent, write)
    return write
  }

  /** All members have all. */
  #forget(): void {
    if (this.#parts.length === 0) return
    this.writtenAt = this.#fanOut.now()
    this.#first += this.#parts.length
    this.#parts = []
    this.#unsent = 0
    this.#writes.clear()
  }
}
