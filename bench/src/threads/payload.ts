/** The bytes of the records, ASCII: the first byte of each is its number, so that a reader may tell them apart by it. */
export function payloadsOf(sizes: readonly number[]): Uint8Array[] {
  return sizes.map((size, number) => Uint8Array.from({ length: size }, (_, at) => byteAt(number, at)))
}

/** `native/ring.c` has the same. */
function byteAt(number: number, at: number): number {
  return at === 0 ? number : (number * 31 + at * 7) & 0x7f
}

/** The same as strings of one byte a character. */
export function textsOf(payloads: readonly Uint8Array[]): string[] {
  return payloads.map((payload) => Buffer.from(payload).toString('latin1'))
}

/** Records of one size. */
export function sizesOf(size: number): number[] {
  return Array.from({ length: 8 }, () => size)
}

/** As many records of these sizes as half a ring holds. */
export function aheadOf(sizes: readonly number[], bytes: number): number {
  // 32 bytes of header, and padding.
  const taken = sizes.reduce((sum, size) => sum + 32 + Math.ceil(size / 8) * 8, 0)
  return Math.floor(bytes / 2 / (taken / sizes.length))
}
