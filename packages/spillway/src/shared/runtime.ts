// Compiled without the types of any runtime: this is what it needs of browsers, Node, Bun, Deno and workers.

/** A channel that all threads which know its name hear. */
export interface Channel {
  postMessage(message: unknown): void
  onmessage: (() => void) | null
  close(): void
  unref?(): void
}

interface Timer {
  ref(): void
  unref(): void
}

/** What is needed of Node's `Buffer`. */
interface NodeBuffer {
  copy(target: Uint8Array, targetStart: number): number
}

interface Host {
  Buffer?: { from(bytes: ArrayBufferLike, offset: number, length: number): NodeBuffer }
  TextEncoder: new () => { encodeInto(text: string, bytes: Uint8Array): { written: number } }
  TextDecoder: new (encoding?: string, options?: { ignoreBOM: boolean }) => { decode(bytes: Uint8Array): string }
  BroadcastChannel?: new (name: string) => Channel
  setInterval(callback: () => void, ms: number): Timer | number
  clearInterval(handle: Timer | number): void
}

export const host: Host = globalThis as unknown as Host

/** Keeps the thread alive while it is held: a wait on shared memory does not, in any runtime. */
export class KeepAlive {
  #timer: Timer | number | undefined

  hold(): void {
    if (typeof this.#timer === 'object') this.#timer.ref()
    else this.#timer ??= host.setInterval(ignore, 2 ** 31 - 1)
  }

  release(): void {
    if (typeof this.#timer === 'object') {
      this.#timer.unref()
      return
    }
    if (this.#timer !== undefined) host.clearInterval(this.#timer)
    this.#timer = undefined
  }
}

function ignore(): void {}
