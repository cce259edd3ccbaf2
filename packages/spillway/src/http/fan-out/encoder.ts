import type { StoredBatch, StoredEvent } from '../../core/event.ts'
import type { BrokerSubscription, Pulled } from '../../core/subscription.ts'
import type { Format } from '../format.ts'
import { Piece } from './sink.ts'

/** How many characters of the events of one batch are remembered. */
const maxRemembered = 2 ** 16

/**
 * Makes the bytes of one format. A whole batch is made once for all streams that send it at about one time; of one that
 * streams get in different parts, each event is made once while they are at it.
 */
export class Encoder {
  readonly format: Format
  readonly #text = new TextEncoder()
  #heartbeat: { readonly cursor: string; readonly piece: Piece } | undefined
  // Weak twice: the bytes of all that is kept, in every format that somebody once asked for, would multiply the memory.
  readonly #batches = new WeakMap<StoredBatch, WeakRef<Piece>>()
  /** The texts of events of the batch that was sent in part last, and how many characters they have. */
  readonly #events = new Map<StoredEvent, string>()
  #remembered = 0
  #rememberedIndex = 0

  constructor(format: Format) {
    this.format = format
  }

  text(text: string): Uint8Array {
    return this.#text.encode(text)
  }

  /** The same piece for all who are at one place. */
  heartbeat(cursor: string, index: number): Piece {
    if (this.#heartbeat?.cursor !== cursor) {
      this.#heartbeat = { cursor, piece: new Piece(this.text(this.format.heartbeat(cursor, index))) }
    }
    return this.#heartbeat.piece
  }

  /** Pulls into `pieces` what is there, until they have `enough` bytes. Answers how many. Throws as `pull` does. */
  gather(subscription: BrokerSubscription, enough: number, pieces: Piece[]): number {
    let size = 0
    while (size < enough) {
      const pulled = subscription.pull()
      if (!pulled) break
      const piece = this.pulled(pulled)
      pieces.push(piece)
      size += piece.bytes.length
    }
    return size
  }

  pulled(pulled: Pulled): Piece {
    if ('gap' in pulled) return new Piece(this.text(this.format.gap(pulled.gap, pulled.cursor)))
    return this.#batch(pulled.batch, pulled.events)
  }

  #batch(batch: StoredBatch, events: readonly StoredEvent[]): Piece {
    if (events !== batch.events) return this.#piece(batch, events, (event) => this.#event(event, batch.index))
    let piece = this.#batches.get(batch)?.deref()
    if (!piece) {
      piece = this.#piece(batch, events, (event) => this.format.event(event, batch.index))
      this.#batches.set(batch, new WeakRef(piece))
    }
    return piece
  }

  #piece(batch: StoredBatch, events: readonly StoredEvent[], textOf: (event: StoredEvent) => string): Piece {
    return new Piece(this.text(this.format.batch(batch, events.map(textOf))))
  }

  #event(event: StoredEvent, index: number): string {
    if (index !== this.#rememberedIndex) {
      this.#events.clear()
      this.#remembered = 0
      this.#rememberedIndex = index
    }
    const known = this.#events.get(event)
    if (known !== undefined) return known
    const text = this.format.event(event, index)
    if (this.#remembered + text.length > maxRemembered) return text
    this.#remembered += text.length
    this.#events.set(event, text)
    return text
  }
}
