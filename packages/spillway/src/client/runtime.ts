import type { Signal } from '../core/signal.ts'

// The client is compiled without the types of any runtime: this is what it needs of browsers, Node, Bun, Deno and workers.

/** What is needed of `fetch`; any runtime's fits. */
export type Fetch = (url: string, init: FetchOptions) => Promise<FetchResponse>

export interface FetchOptions {
  method: 'GET' | 'POST'
  headers: Record<string, string>
  body?: string
  cache: 'no-store'
  credentials: Credentials
  redirect: 'manual'
  // A runtime's own type, which this one is.
  signal: never
}

/** When a browser sends cookies, see `fetch`. */
export type Credentials = 'omit' | 'same-origin' | 'include'

export interface FetchResponse {
  readonly status: number
  readonly type: string
  readonly headers: { get(name: string): string | null }
  readonly body: { getReader(): BodyReader } | null
}

export interface BodyReader {
  read(): Promise<{ done: boolean; value?: Uint8Array | undefined }>
  cancel(reason?: unknown): Promise<void>
}

/** What is needed of the class `WebSocket`; any runtime's fits, and that of the package `ws`. */
export type ClientWebSocket = new (
  url: string,
) => {
  send(text: string): void
  close(): void
  // biome-ignore lint/suspicious/noExplicitAny: each runtime has types of its own for its events
  addEventListener(type: 'open' | 'message' | 'close' | 'error', listener: (event: any) => void): void
}

/** The runtime's own `AbortSignal`, as far as its types are known where this is compiled: `fetch` takes nothing less. */
export type OwnSignal = typeof globalThis extends { AbortSignal: { prototype: infer Own extends Signal } }
  ? Own
  : Signal

export interface Controller {
  readonly signal: Signal
  abort(reason?: unknown): void
}

interface Listening {
  addEventListener?(type: string, listener: () => void): void
  removeEventListener?(type: string, listener: () => void): void
}

interface Host extends Listening {
  fetch?: unknown
  WebSocket?: unknown
  ReadableStream?: unknown
  AbortController: new () => Controller
  TextDecoder: new (
    label: string,
    options: { fatal: boolean },
  ) => { decode(bytes?: Uint8Array, options?: { stream: boolean }): string }
  URL: new (url: string, base?: string) => { protocol: string; href: string; username: string; password: string }
  location?: { href: string }
  document?: Listening & { readonly visibilityState: string }
  crypto: { getRandomValues(bytes: Uint8Array): Uint8Array }
  performance: { now(): number }
  setTimeout(callback: () => void, ms: number): unknown
  clearTimeout(handle: unknown): void
}

export const host: Host = globalThis as unknown as Host

/** Calls `listener` when the network, or the person before the screen, comes back. Gives the undo. */
export function onReturn(listener: () => void): () => void {
  const seen = () => {
    if (host.document?.visibilityState === 'visible') listener()
  }
  host.addEventListener?.('online', listener)
  host.document?.addEventListener?.('visibilitychange', seen)
  return () => {
    host.removeEventListener?.('online', listener)
    host.document?.removeEventListener?.('visibilitychange', seen)
  }
}

/** A name that nobody else gives: 128 random bits. `crypto.randomUUID` is missing on pages without TLS. */
export function randomId(): string {
  return Array.from(host.crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join(
    '',
  )
}
