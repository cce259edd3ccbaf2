import { setTimeout } from 'node:timers/promises'
import { now } from '../threads/clock.ts'
import type { EngineContender, EngineStore } from './contender.ts'
import { eventText, eventTexts } from './event.ts'

export interface Appends {
  readonly count: number
  readonly perSecond: number
  /** Microseconds that each call took. */
  readonly times: readonly number[]
}

/** Publishers that append one event after another, as fast as they are acknowledged; or one, whose groups have as many. */
export async function appendFor(
  store: EngineStore,
  { joins }: Pick<EngineContender, 'joins'>,
  publishers: number,
  ms: number,
): Promise<Appends> {
  const size = joins ? 1 : publishers
  const times: number[] = []
  let sent = 0
  const started = now()
  const publish = async () => {
    for (let at = now(); at - started < ms * 1000; ) {
      const texts = eventTexts(sent + 1, size)
      sent += size
      await store.append(texts)
      const before = at
      at = now()
      times.push(at - before)
    }
  }
  await Promise.all(Array.from({ length: joins ? publishers : 1 }, publish))
  return { count: sent, perSecond: sent / ((now() - started) / 1e6), times }
}

/** Appends so many events a second, whether or not those before were acknowledged. Gives when each was, on the clock of all processes. */
export async function offer(store: EngineStore, perSecond: number, count: number): Promise<number[]> {
  const sentAt: number[] = []
  const acknowledged: Promise<unknown>[] = []
  const started = now()
  while (sentAt.length < count) {
    const due = Math.min(count, Math.floor(((now() - started) / 1e6) * perSecond) + 1)
    while (sentAt.length < due) {
      sentAt.push(now())
      acknowledged.push(store.append([eventText(sentAt.length)]))
    }
    // Not a turn at a time: a loop that never rests takes a processor from the engine and the reader.
    await setTimeout(1)
  }
  await Promise.all(acknowledged)
  return sentAt
}
