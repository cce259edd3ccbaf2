import type { EngineContender, EngineStore, Site } from './contender.ts'
import { eventTexts, numberOf } from './event.ts'

const size = 1000
const alone = 20
const patience = 20_000

/** Why what a contender acknowledged is not there once, at the place that it was given, and read once and in order by who follows. */
export async function engineConformance(contender: EngineContender, site: Site): Promise<string | undefined> {
  const writer = await contender.open(site)
  const other = await contender.open(site)
  const told = new Sequence()
  await other.follow?.((text) => told.take(numberOf(text)))
  const places = await appendAll(contender, writer)
  if (other.follow) {
    const isTold = await told.reaches(size, patience)
    if (!isTold) return `told a follower ${told.numbers.length} of ${size} events`
  }
  const kept: { number: number; place: number }[] = []
  await other.replay((event, place) => kept.push({ number: numberOf(event), place }))
  await writer.close()
  await other.close()
  if (kept.length !== size) return `gave ${kept.length} of ${size} events back`
  const order = kept.map(({ number }) => number)
  const misplaced = kept.find(({ number, place }) => places[number - 1] !== place)
  if (misplaced) return `acknowledged event ${misplaced.number} elsewhere than at ${misplaced.place}`
  if (kept.some(({ place }, at) => place <= (kept[at - 1]?.place ?? 0))) return 'gave events back out of order'
  // Ids of overlapping transactions are in another order than their commits.
  if (other.follow && told.numbers.some((number, at) => at < alone && number !== order[at])) {
    return 'told events that were waited for out of order'
  }
  if (new Set(told.numbers).size !== told.numbers.length) return 'told an event twice'
  return undefined
}

/** Stores some one by one, the others all at once. Gives the place of each. */
async function appendAll({ joins }: EngineContender, store: EngineStore): Promise<number[]> {
  const events = eventTexts(1, size)
  const places: number[] = []
  for (const event of events.slice(0, alone)) places.push(...(await store.append([event])))
  const rest = events.slice(alone)
  if (!joins) return [...places, ...(await store.append(rest))]
  return [...places, ...(await Promise.all(rest.map((event) => store.append([event])))).flat()]
}

/** Numbers as they come. */
export class Sequence {
  readonly numbers: number[] = []
  #wanted = Number.POSITIVE_INFINITY
  #arrive: () => void = () => {}

  take(number: number): void {
    if (this.numbers.push(number) >= this.#wanted) this.#arrive()
  }

  /** Whether so many have come within `ms` milliseconds. */
  async reaches(count: number, ms: number): Promise<boolean> {
    if (this.numbers.length >= count) return true
    this.#wanted = count
    let timer: ReturnType<typeof setTimeout> | undefined
    await new Promise<void>((resolve) => {
      this.#arrive = resolve
      timer = setTimeout(resolve, ms)
    })
    clearTimeout(timer)
    return this.numbers.length >= count
  }
}
