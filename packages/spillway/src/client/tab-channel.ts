import { systemClock } from '../core/clock.ts'
import type { Signal } from '../core/signal.ts'

// What tabs say to each other. All of them hear the channel that has the name of what they share; each also has one of its own,
// since what one tab gets depends on how far it has come.

/** Where the tab that leads stands. */
export interface LeaderPosition {
  readonly cursor: string
  /** The newest index that it knows of. */
  readonly newest: number
}

/** The status of the leading tab's connection. */
export type LeaderStatus =
  | { readonly state: 'connecting'; readonly attempt: number }
  | { readonly state: 'open'; readonly cursor: string }
  | {
      readonly state: 'waiting'
      readonly attempt: number
      readonly ms: number
      readonly error: { readonly code: string; readonly message: string }
    }

/** What all hear: that a tab leads, and what tabs ask of the one that does. `join`: counts the times that tab `id` joined. */
export type Call =
  | { readonly kind: 'leader'; readonly leader: string }
  /** `units`: what it holds that was sent before. */
  | { readonly kind: 'hello'; readonly id: string; readonly join: number; readonly units: number }
  | { readonly kind: 'ping'; readonly id: string; readonly join: number }
  /** It has done with so many units of what it was sent. */
  | { readonly kind: 'done'; readonly id: string; readonly join: number; readonly units: number }
  | { readonly kind: 'bye'; readonly id: string }

/** What the leader says to one tab. */
export type Told = { readonly leader: string; readonly join: number } & (
  | { readonly kind: 'status'; readonly status: LeaderStatus }
  /** From here on it gets everything that comes after `position`. */
  | { readonly kind: 'welcome'; readonly position: LeaderPosition }
  | {
      readonly kind: 'items'
      /** Counts from 0 for each join: one that is missing is a hole. */
      readonly n: number
      /** Batches and losses, each as JSON. */
      readonly items: readonly string[]
      readonly position: LeaderPosition
    }
  | { readonly kind: 'pong'; readonly n: number; readonly position: LeaderPosition }
  /** It gets nothing more until it joins again. */
  | { readonly kind: 'lost' }
)

/** A channel between the tabs of one origin. */
export interface TabChannel {
  postMessage(message: unknown): void
  onmessage: ((message: { readonly data: unknown }) => void) | null
  close(): void
}

/** The Web Locks API, as far as it is needed. */
export interface Locks {
  request(name: string, options: { signal: Signal } | { steal: true }, held: () => Promise<void>): Promise<unknown>
}

interface Host {
  BroadcastChannel?: new (name: string) => TabChannel
  navigator?: { readonly locks?: Locks }
  crypto: { readonly subtle?: { digest(name: 'SHA-256', bytes: Uint8Array): Promise<ArrayBuffer> } }
  TextEncoder: new () => { encode(text: string): Uint8Array }
}

export const tabHost: Host = globalThis as unknown as Host

/** UTF-16 units of batches that may be on their way to a tab or wait in it. What is beyond that it reads by itself. */
export const windowUnits: number = 2 ** 20

/** What a batch takes, in units: its text, and what it costs whoever holds it. */
export function unitsOf(text: string): number {
  return text.length + 64
}

export function openTabChannel(name: string): TabChannel {
  const { BroadcastChannel } = tabHost
  if (!BroadcastChannel) throw new Error('unreachable: nothing is shared where there is no BroadcastChannel')
  return new BroadcastChannel(name)
}

/** The name of a tab's own channel. */
export function channelOf(share: string, id: string): string {
  return `${share} ${id}`
}

/** Closes a channel in a later turn: what was posted just now must arrive. */
export function closeLater(channel: TabChannel): void {
  systemClock.defer(() => channel.close())
}
