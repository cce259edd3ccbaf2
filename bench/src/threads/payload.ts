/** What is published where there is a broker. */
export interface OrderEvent {
  readonly topic: string
  readonly type: string
  readonly key: string
  readonly payload: string
}

/** The bytes of the records: the first of each is a digit, its number, so that a reader may tell them apart by it. */
export function payloadsOf(sizes: readonly number[]): Uint8Array[] {
  return sizes.map((size, number) => Uint8Array.from({ length: size }, (_, at) => byteAt(number, at)))
}

/** The first byte of record `number`. */
export function digit(number: number): number {
  return 0x30 + number
}

/** `native/ring.c` has the same. Nothing that JSON escapes. */
function byteAt(number: number, at: number): number {
  return at === 0 ? digit(number) : 0x61 + ((number * 31 + at * 7) % 26)
}

/** The same as strings of one byte a character. */
export function textsOf(payloads: readonly Uint8Array[]): string[] {
  return payloads.map((payload) => Buffer.from(payload).toString('latin1'))
}

/** The same as events of a broker. */
export function eventsOf(sizes: readonly number[]): OrderEvent[] {
  const texts = textsOf(payloadsOf(sizes))
  return texts.map((payload, number) => ({ topic: 'Order', type: 'OrderPlaced', key: `${number}`, payload }))
}

/** Records of one size. */
export function sizesOf(size: number): number[] {
  return Array.from({ length: 8 }, () => size)
}

/** As many records of these sizes as half a ring holds. `around`: bytes that are beside each payload. */
export function aheadOf(sizes: readonly number[], bytes: number, around: number = 32): number {
  const taken = sizes.reduce((sum, size) => sum + around + Math.ceil(size / 8) * 8, 0)
  return Math.floor(bytes / 2 / (taken / sizes.length))
}
