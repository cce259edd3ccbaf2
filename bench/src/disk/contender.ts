import type { AnyBroker } from 'spillway'

/** A file, or memory, that keeps events in order. */
export interface DiskStore {
  /** Stores a group; once it returned or resolved, the group has reached the contender's level of durability. */
  append(events: readonly string[]): unknown
  /** Gives everything that is kept, in order. Payloads are taken apart only by who looks at them. */
  replay(take: (event: { readonly payload: unknown }) => void): Promise<void>
  close(): void | Promise<void>
  /** What can be served over HTTP. */
  readonly broker?: AnyBroker
}

export interface DiskContender {
  readonly name: string
  readonly role: 'ours' | 'peer' | 'floor'
  /** It joins what many publishers append at once. Of the others, the caller makes groups. */
  readonly joins: boolean
  /** There is nothing to open again. */
  readonly inMemory?: boolean
  /** Opens a store or makes it. */
  open(path: string): Promise<DiskStore>
}
