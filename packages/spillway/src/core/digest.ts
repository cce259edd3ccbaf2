import type { PendingBatch } from './event.ts'

/**
 * 53 bits of the events and wanted indexes of an append: tells a publish that is repeated from another one under the same
 * key. It guards against mistakes, not against attackers, who could as well use a fresh key.
 */
export function digestOf(batches: readonly PendingBatch[]): number {
  const digest = new Digest()
  for (const { index = 0, events } of batches) {
    digest.add(`${index} ${events.length}`)
    for (const { topic, type, key, namespace, filterKeys, payloadText } of events) {
      for (const text of [topic, type, key, namespace, String(filterKeys.length), ...filterKeys, payloadText]) {
        digest.add(text)
      }
    }
  }
  return digest.value
}

/** Two multiplicative hashes side by side. */
class Digest {
  #high = 0xdeadbeef
  #low = 0x41c6ce57

  add(text: string): void {
    for (let i = 0; i < text.length; i++) this.#mix(text.charCodeAt(i))
    // No text ends where another goes on.
    this.#mix(0x10000)
  }

  get value(): number {
    return (this.#high & 0x1fffff) * 2 ** 32 + (this.#low >>> 0)
  }

  #mix(unit: number): void {
    this.#high = Math.imul(this.#high ^ unit, 0x9e3779b1)
    this.#high ^= this.#high >>> 15
    this.#low = Math.imul(this.#low ^ unit, 0x5f356495)
    this.#low ^= this.#low >>> 13
  }
}
