import type { DiskContender } from './contender.ts'
import { eventTexts } from './event.ts'

const size = 1000

/** Why a contender does not give back, in order, what it stored one by one, at once and in a group, if so. */
export async function diskConformance(contender: DiskContender, path: string): Promise<string | undefined> {
  const events = eventTexts(1, size)
  let store = await contender.open(path)
  await store.append(events.slice(0, 1))
  if (contender.joins) await Promise.all(events.slice(1, 200).map((event) => store.append([event])))
  else await store.append(events.slice(1, 200))
  await store.append(events.slice(200))
  if (!contender.inMemory) {
    await store.close()
    store = await contender.open(path)
  }
  const found: string[] = []
  await store.replay(({ payload }) => found.push(typeof payload === 'string' ? payload : JSON.stringify(payload)))
  await store.close()
  if (found.length !== size) return `gave ${found.length} of ${size} events back`
  const wrong = found.findIndex((text, at) => text !== events[at])
  return wrong < 0 ? undefined : `gave ${found[wrong]?.slice(0, 20)} as event ${wrong + 1}`
}
