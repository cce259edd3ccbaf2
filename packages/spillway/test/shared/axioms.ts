/** What a thread does to a cell. `load`, `store` and `add` are atomic, `read` and `write` are plain. Cells begin as 0. */
export type Access =
  | { readonly op: 'load' | 'read'; readonly cell: string; readonly as: string }
  | { readonly op: 'add'; readonly cell: string; readonly as: string; readonly value: number }
  | { readonly op: 'store' | 'write'; readonly cell: string; readonly value: number }

/** What each named access read. */
export type Outcome = Readonly<Record<string, number>>

interface Event {
  readonly id: number
  readonly thread: number
  readonly cell: string
  readonly reads: boolean
  readonly writes: boolean
  readonly isAtomic: boolean
  readonly as?: string
  /** What it writes, or adds to what it read. */
  readonly value: number
  readonly adds: boolean
}

/**
 * Whether the axioms of ECMAScript's memory model allow `threads` to come to an outcome that is `wanted`, by trying every
 * write for every read and every memory order. All accesses of a cell have one range.
 * [ECMA-262, Memory Model] Coherent Reads, Sequentially Consistent Atomics, happens-before.
 */
export function isAllowed(threads: readonly (readonly Access[])[], wanted: (outcome: Outcome) => boolean): boolean {
  const events = eventsOf(threads)
  const reads = events.filter((event) => event.reads)
  const choose = (at: number, from: Map<Event, Event>): boolean => {
    const read = reads[at]
    if (!read) return isExecution(events, from, wanted)
    return events.some(
      (write) =>
        write.writes && write !== read && write.cell === read.cell && choose(at + 1, new Map(from).set(read, write)),
    )
  }
  return choose(0, new Map())
}

function eventsOf(threads: readonly (readonly Access[])[]): Event[] {
  const cells = new Set(threads.flat().map(({ cell }) => cell))
  const initial = { thread: -1, reads: false, writes: true, isAtomic: false, value: 0, adds: false }
  const events: Event[] = [...cells].map((cell, id) => ({ ...initial, id, cell }))
  for (const [thread, accesses] of threads.entries()) {
    for (const access of accesses) {
      events.push({
        id: events.length,
        thread,
        cell: access.cell,
        reads: 'as' in access,
        writes: 'value' in access,
        isAtomic: access.op !== 'read' && access.op !== 'write',
        value: 'value' in access ? access.value : 0,
        adds: access.op === 'add',
        ...('as' in access && { as: access.as }),
      })
    }
  }
  return events
}

function isExecution(events: Event[], from: Map<Event, Event>, wanted: (outcome: Outcome) => boolean): boolean {
  const outcome = outcomeOf(from)
  if (!outcome || !wanted(outcome)) return false
  const before = happensBefore(events, from)
  const isBefore = (a: Event, b: Event) => before[a.id]?.[b.id] === true
  if (events.some((event) => isBefore(event, event))) return false
  for (const [read, write] of from) {
    if (isBefore(read, write)) return false
    const hides = (other: Event) =>
      other !== write && other.writes && other.cell === read.cell && isBefore(write, other) && isBefore(other, read)
    if (events.some(hides)) return false
  }
  return hasMemoryOrder(events, from, isBefore)
}

/** `undefined` where read-modify-writes read each other in a circle. */
function outcomeOf(from: Map<Event, Event>): Outcome | undefined {
  const outcome: Record<string, number> = {}
  for (const read of from.keys()) {
    let value = 0
    let write = from.get(read) as Event
    for (let steps = 0; write.adds; steps++) {
      if (steps > from.size) return undefined
      value += write.value
      write = from.get(write) as Event
    }
    outcome[read.as as string] = value + write.value
  }
  return outcome
}

/** The order of each thread, the edge from an atomic write to an atomic read of it, and the beginning before all. */
function happensBefore(events: Event[], from: Map<Event, Event>): boolean[][] {
  const before = events.map((a) =>
    events.map((b) => {
      if (a.thread === -1) return b.thread !== -1
      return (a.thread === b.thread && a.id < b.id) || synchronizes(from, a, b)
    }),
  )
  for (const middle of events) {
    for (const row of before) {
      if (!row[middle.id]) continue
      for (const { id } of events) if (before[middle.id]?.[id]) row[id] = true
    }
  }
  return before
}

function synchronizes(from: Map<Event, Event>, write: Event, read: Event): boolean {
  return write.isAtomic && read.isAtomic && from.get(read) === write
}

/** Whether the events have a total order in which no read passes over an atomic write that it may not. */
function hasMemoryOrder(events: Event[], from: Map<Event, Event>, isBefore: (a: Event, b: Event) => boolean): boolean {
  const placed: Event[] = []
  const isPassed = (read: Event, write: Event, other: Event) =>
    other.isAtomic &&
    (synchronizes(from, write, read) ||
      (read.isAtomic && isBefore(write, read)) ||
      (write.isAtomic && isBefore(other, read)))
  const fits = (event: Event): boolean => {
    if (!event.reads) return true
    const write = from.get(event) as Event
    const at = placed.indexOf(write)
    // A plain read may come before what it reads: nothing stands between them then.
    if (at < 0) return true
    return !placed.some(
      (other, n) => n > at && other.writes && other.cell === event.cell && isPassed(event, write, other),
    )
  }
  const extend = (): boolean => {
    if (placed.length === events.length) return true
    for (const event of events) {
      if (placed.includes(event) || !fits(event)) continue
      if (events.some((other) => isBefore(other, event) && !placed.includes(other))) continue
      placed.push(event)
      if (extend()) return true
      placed.pop()
    }
    return false
  }
  return extend()
}
