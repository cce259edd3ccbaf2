import type { SharedHandle } from 'spillway/shared'

// The ring below `spillway/shared`. Nobody but its own face is meant to use it, so it is not published: it is loaded from
// the files beside what is, and of each this says what is needed here.

/** Appends records, and publishes them: by itself after 64 of them or 32 KiB. */
export interface RingWriter {
  append(payload: Uint8Array, index: number, type: number, tag: number, key: number, events: number): void
  publish(): void
}

/** A copy of whole records, each known by its offset. */
export interface Span {
  readonly position: number
  readonly bytes: Uint8Array
  readonly end: number
  typeAt(offset: number): number
  sizeAt(offset: number): number
  seqAt(offset: number): number
  payloadAt(offset: number): Uint8Array
}

/** A place in the ring that moves on, and what was lost on the way. */
export interface RingReader {
  readonly lost: number
  readonly position: number
  readonly tail: number
  read(): Span | undefined
  pass(span: Span, offset: number): void
  tell(): void
}

interface Ring {
  readonly memory: unknown
  readonly layout: unknown
}

interface Place {
  readonly position: number
  readonly seq: number
  readonly index: number
}

interface Modules {
  readonly layout: {
    createRing(options: { bytes: number }): SharedHandle
    openRing(handle: SharedHandle): Ring
    recordBytes(length: number): number
    readonly headerBytes: number
    readonly recordType: { readonly batch: number; readonly closed: number }
  }
  readonly writer: { RingWriter: new (ring: Ring, place: Place, claimed: number) => RingWriter }
  readonly reader: { RingReader: new (ring: Ring, place: Place, spans: unknown) => RingReader }
  readonly span: { SpanReader: new (ring: Ring, most: undefined, isAlone: boolean) => unknown }
  readonly wait: {
    sleep(memory: unknown, seen: number, ms: number): boolean
    Alarm: new (memory: unknown, layout: unknown, wake: () => void) => { set(seen: number): void }
  }
}

async function load<Name extends keyof Modules>(name: Name): Promise<Modules[Name]> {
  return import(new URL(`${name}.js`, import.meta.resolve('spillway/shared')).href)
}

const start: Place = { position: 0, seq: 0, index: 0 }

/** How the memory is laid out. */
export const layout: Modules['layout'] = await load('layout')

/** The writer of a ring that is empty. */
export async function newWriter(handle: SharedHandle): Promise<RingWriter> {
  const { RingWriter } = await load('writer')
  return new RingWriter(layout.openRing(handle), start, -1)
}

/** A reader from the first record on, and its ways to wait for what is behind `tail`. */
export async function newReader(
  handle: SharedHandle,
  wake: () => void,
): Promise<{ reader: RingReader; block(): void; await(): void }> {
  const ring = layout.openRing(handle)
  const { RingReader } = await load('reader')
  const { SpanReader } = await load('span')
  const { Alarm, sleep } = await load('wait')
  const reader = new RingReader(ring, start, new SpanReader(ring, undefined, true))
  const alarm = new Alarm(ring.memory, ring.layout, wake)
  return {
    reader,
    block: () => void sleep(ring.memory, reader.tail, Number.POSITIVE_INFINITY),
    await: () => alarm.set(reader.tail),
  }
}
