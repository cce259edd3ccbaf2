import { createBroker, JsonText, type Log, memoryLog } from 'spillway'
import { sqliteLog } from 'spillway/log/sqlite'
import type { DiskStore } from '../contender.ts'

/** More than any scenario stores, so that nothing is lost. */
const all = { capacity: 2 ** 21, maxBytes: 2 ** 30 }
/** What a broker with a log keeps in memory beside it. */
const recent = { capacity: 1024 }

export const onDisk = async (path: string): Promise<DiskStore> => over(await sqliteLog({ path, durability: 'power' }))
export const onDiskForProcess = async (path: string): Promise<DiskStore> =>
  over(await sqliteLog({ path, durability: 'process' }))
export const inMemoryLog = (): DiskStore => over(memoryLog(all))
export const inBuffer = (): DiskStore => over()

function over(log?: Log): DiskStore {
  const broker = createBroker(log ? { log, ...recent } : all)
  return {
    broker,
    append(texts) {
      const [only] = texts
      const batches = texts.map((text) => ({ events: [event(text)] }))
      return batches.length === 1 ? broker.publish(event(only as string)) : broker.publishAll(batches)
    },
    async replay(take) {
      const { newestIndex } = broker.status
      if (newestIndex === 0) return
      for await (const batch of broker.subscribe({ from: 'earliest' })) {
        if (batch.gap) throw new Error(`The replay has a gap: ${JSON.stringify(batch.gap)}.`)
        for (const event of batch.events) take(event)
        if (batch.index === newestIndex) return
      }
    },
    close: () => broker.close(),
  }
}

const event = (text: string) => ({ topic: 'bench', type: 'event', payload: new JsonText(text) })
