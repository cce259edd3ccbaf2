import { createBroker, type Log, type PendingBatch, StoredEvent } from 'spillway'
import type { EngineStore } from '../contender.ts'

const pageLength = 256
/** What the broker keeps in memory beside the log. */
const recent = 1024

const names = { topic: 'bench', type: 'event', key: '', namespace: '', filterKeys: [] }
const nameBytes = names.topic.length + names.type.length

const batchOf = (text: string): PendingBatch => ({
  events: [new StoredEvent(names, text)],
  bytes: nameBytes + text.length,
})

/** The log by itself: a batch an event. */
export function overLog(log: Log, close: () => Promise<unknown>): EngineStore {
  return {
    append: async (texts) => (await log.append(texts.map(batchOf))).indexes,
    async follow(take) {
      log.follow(({ events }) => {
        for (const { payloadText } of events) take(payloadText)
      })
    },
    async replay(take) {
      const { last } = log
      for (let at = log.floor; at < last; ) {
        const { batches, floor, lost = 0 } = await log.read(at, pageLength)
        if (floor > at || lost > at || batches.length === 0) throw new Error(`Batches after ${at} are missing.`)
        for (const { index, events } of batches) {
          at = index
          for (const { payloadText } of events) take(payloadText, index)
        }
      }
    },
    async close() {
      await log.close()
      await close()
    },
  }
}

/** The same, read by a subscription. */
export function overBroker(log: Log, close: () => Promise<unknown>): EngineStore {
  const broker = createBroker({ log, capacity: recent })
  return {
    ...overLog(log, close),
    async replay(take) {
      const { newestIndex } = broker.status
      for await (const batch of broker.subscribe({ from: 'earliest' })) {
        if (batch.gap) throw new Error(`The replay has a gap: ${JSON.stringify(batch.gap)}.`)
        for (const { payload } of batch.events) take(payload, batch.index)
        if (batch.index >= newestIndex) return
      }
    },
    async close() {
      await broker.close()
      await close()
    },
  }
}
