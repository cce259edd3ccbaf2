import type { AnyBroker } from '../core/broker.ts'
import { systemClock } from '../core/clock.ts'
import { type LimitOptions, type Place, PublishRate, StreamLimits } from './limits.ts'
import { ticketsOf } from './tickets.ts'

/**
 * What is to be counted and known once for all who serve a history: for servers of several threads or processes. Whatever
 * is a promise here may also be a value.
 */
export interface HandlerState {
  /** Takes a place for a stream from `address`, `''` if it has none. Throws or rejects with `OVERLOADED`. */
  takePlace(address: string): Place | Promise<Place>
  /** Takes as much from what `publisher` may publish now. Throws or rejects with `RATE_LIMITED`. */
  takeEvents(publisher: string, events: number): void | Promise<void>
  /** A ticket that stands for `token` once, for 30 seconds. Throws or rejects with `OVERLOADED`. */
  issueTicket(token: string): string | Promise<string>
  /** The token that a ticket stands for; it is used up. */
  redeemTicket(ticket: string): string | undefined | Promise<string | undefined>
  /** What `GET /v1/status` tells of others, too. Absent: it tells of this one only. */
  counts?(): Promise<{ readonly subscriptions: number; readonly streams: number }>
}

/** The state of one process: places and tickets of all handlers of `broker`. Throws `CONFIG` that names the limit. */
export function createHandlerState(broker: AnyBroker, limits: LimitOptions = {}): HandlerState {
  const streams = new StreamLimits(broker, limits)
  const rate = new PublishRate(limits.maxPublishRate)
  const tickets = ticketsOf(broker)
  const now = () => systemClock.monotonic()
  return {
    takePlace: (address) => streams.take(address),
    takeEvents: (publisher, events) => rate.take(publisher, events, now()),
    issueTicket: (token) => tickets.issue(token, now()),
    redeemTicket: (ticket) => tickets.take(ticket, now()),
  }
}
