import { host } from './runtime.ts'

/**
 * Every access of writer and readers to shared memory: so that a test can stand between any two of them.
 * `load`, `store`, `add`, `notify` and the waits are those of `Atomics`; the others are plain.
 */
export interface Memory {
  load(word: number): number
  store(word: number, value: number): void
  /** Gives back the value before. */
  add(word: number, value: number): number
  /** Wakes all who wait for this word. */
  notify(word: number): void
  /** Blocks until notified, or `ms` milliseconds. */
  wait(word: number, value: number, ms: number): 'ok' | 'not-equal' | 'timed-out'
  /** Resolves when notified; `undefined` if the word has another value already. Throws where the runtime has no such thing. */
  waitAsync(word: number, value: number): Promise<unknown> | undefined

  get(word: number): number
  set(word: number, value: number): void
  /** Stores 8 words: a header or a table entry. */
  put(word: number, a: number, b: number, c: number, d: number, e: number, f: number, g: number, h: number): void
  copyIn(offset: number, bytes: Uint8Array): void
  /** Fills `bytes` with what is at `offset`. */
  copyOut(offset: number, bytes: Uint8Array): void
}

// [ECMA-262, 2024] Newer than what this is compiled for.
type WaitAsync = (
  words: Int32Array,
  word: number,
  value: number,
) => { readonly async: boolean; readonly value: Promise<unknown> | string }

/** Whether this runtime can wait without blocking. */
export function hasWaitAsync(): boolean {
  return 'waitAsync' in Atomics
}

/**
 * Bytes from which Node's copy, a plain memmove, beats that of typed arrays, which goes word by word in shared memory: 3.3x
 * at 16 KiB. What other threads see of either while it runs is as undefined, and nobody looks. Copying out gains nothing by it.
 */
const large = 2 ** 14

/** The memory of a SharedArrayBuffer. */
export class SharedMemory implements Memory {
  readonly #words: Int32Array
  readonly #bytes: Uint8Array

  constructor(buffer: SharedArrayBuffer) {
    this.#words = new Int32Array(buffer)
    this.#bytes = new Uint8Array(buffer)
  }

  load(word: number): number {
    return Atomics.load(this.#words, word)
  }

  store(word: number, value: number): void {
    Atomics.store(this.#words, word, value)
  }

  add(word: number, value: number): number {
    return Atomics.add(this.#words, word, value)
  }

  notify(word: number): void {
    Atomics.notify(this.#words, word)
  }

  wait(word: number, value: number, ms: number): 'ok' | 'not-equal' | 'timed-out' {
    return Atomics.wait(this.#words, word, value, ms)
  }

  waitAsync(word: number, value: number): Promise<unknown> | undefined {
    // Never with a time-out: Bun leaks a timer for each (oven-sh/bun #34456).
    const { waitAsync } = Atomics as unknown as { waitAsync: WaitAsync }
    const waiting = waitAsync(this.#words, word, value)
    return waiting.async ? (waiting.value as Promise<unknown>) : undefined
  }

  get(word: number): number {
    return this.#words[word] as number
  }

  set(word: number, value: number): void {
    this.#words[word] = value
  }

  put(word: number, a: number, b: number, c: number, d: number, e: number, f: number, g: number, h: number): void {
    const words = this.#words
    words[word] = a
    words[word + 1] = b
    words[word + 2] = c
    words[word + 3] = d
    words[word + 4] = e
    words[word + 5] = f
    words[word + 6] = g
    words[word + 7] = h
  }

  copyIn(offset: number, bytes: Uint8Array): void {
    if (host.Buffer && bytes.length >= large) {
      host.Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).copy(this.#bytes, offset)
    } else this.#bytes.set(bytes, offset)
  }

  copyOut(offset: number, bytes: Uint8Array): void {
    bytes.set(this.#bytes.subarray(offset, offset + bytes.length))
  }
}
