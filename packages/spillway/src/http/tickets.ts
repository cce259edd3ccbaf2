import type { AnyBroker } from '../core/broker.ts'
import { SpillwayError } from '../core/errors.ts'
import { getOrMake } from '../core/get-or-make.ts'

/** How long a ticket can be used, in milliseconds. */
export const ticketLife = 30_000
/** Tickets that may be out at once, and UTF-16 units of the tokens that they stand for. */
const mostTickets = 10_000
const mostUnits = 2 ** 24
/** Tickets of one token that may be out at once. */
const mostOfToken = 100

/**
 * Tickets that stand for a token in a URL, each once and for a short time: URLs are logged, and a token in one would be
 * readable for long. They are this process's: another server does not know them.
 */
export class Tickets {
  readonly #byToken = new Map<string, number>()
  #units = 0
  readonly #tickets = new Map<string, { readonly token: string; readonly usableUntil: number }>()

  /** `now`: milliseconds that only grow. Throws `OVERLOADED`: nobody loses a ticket because others ask for many. */
  issue(token: string, now: number): string {
    this.#dropOld(now)
    const ofToken = this.#byToken.get(token) ?? 0
    if (ofToken >= mostOfToken) {
      throw new SpillwayError(
        'OVERLOADED',
        `${mostOfToken} tickets of this token are out, of which each is good for 30 seconds.`,
      )
    }
    if (this.#tickets.size >= mostTickets || this.#units + token.length > mostUnits) {
      throw new SpillwayError('OVERLOADED', `${mostTickets} tickets are out, of which each is good for 30 seconds.`)
    }
    const bytes = globalThis.crypto.getRandomValues(new Uint8Array(18))
    const ticket = btoa(String.fromCharCode(...bytes))
      .replaceAll('+', '-')
      .replaceAll('/', '_')
    this.#units += token.length
    this.#byToken.set(token, ofToken + 1)
    this.#tickets.set(ticket, { token, usableUntil: now + ticketLife })
    return ticket
  }

  /** The token that a ticket stands for, once. */
  take(ticket: string, now: number): string | undefined {
    const found = this.#tickets.get(ticket)
    this.#delete(ticket)
    return found && now < found.usableUntil ? found.token : undefined
  }

  #dropOld(now: number): void {
    // The oldest come first.
    for (const [ticket, { usableUntil }] of this.#tickets) {
      if (now < usableUntil) return
      this.#delete(ticket)
    }
  }

  #delete(ticket: string): void {
    const { token } = this.#tickets.get(ticket) ?? {}
    if (token === undefined) return
    this.#tickets.delete(ticket)
    this.#units -= token.length
    const left = (this.#byToken.get(token) ?? 0) - 1
    if (left > 0) this.#byToken.set(token, left)
    else this.#byToken.delete(token)
  }
}

const byBroker = new WeakMap<AnyBroker, Tickets>()

/** The tickets to the streams of `broker`, whichever mount gave them out. */
export function ticketsOf(broker: AnyBroker): Tickets {
  return getOrMake(byBroker, broker, () => new Tickets())
}
