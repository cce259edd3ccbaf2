/**
 * Time as the core sees it, passed in so that tests and simulations own it.
 * Order never depends on it; only age limits, expiry and the length of one turn do.
 */
export interface Clock {
  /** Wall clock, Unix milliseconds. Jumps when somebody sets it: used only for what others measure by it, such as a token's expiry. */
  now(): number
  /** Milliseconds that only grow, from an arbitrary start. */
  monotonic(): number
  /** Runs `callback` once after `ms` milliseconds, 24 days at the most, and gives back the undo. Does not keep the process alive. */
  after(ms: number, callback: () => void): () => void
  /** Runs `callback` in a later macrotask, so that I/O gets its turn first. */
  defer(callback: () => void): void
}

// The core is compiled without Node's and the DOM's types; these are in every runtime, setImmediate only in Node-like ones.
interface Host {
  performance: { now(): number }
  setTimeout(callback: () => void, ms: number): { unref?(): void } | number
  clearTimeout(handle: unknown): void
  setImmediate?(callback: () => void): unknown
}
const host = globalThis as unknown as Host

/** Longer ones fire at once. */
const longestTimeout = 2 ** 31 - 1

/** The runtime's own clock. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => host.performance.now(),
  after(ms, callback) {
    const handle = host.setTimeout(callback, Math.min(ms, longestTimeout))
    if (typeof handle === 'object') handle.unref?.()
    return () => host.clearTimeout(handle)
  },
  defer(callback) {
    if (host.setImmediate) host.setImmediate(callback)
    else host.setTimeout(callback, 0)
  },
}
