// A history without one topic: every batch of a log's file is read, also around damage, and what is kept makes a new log.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createBroker, type HistoryBatch } from 'spillway'
import { type FilePart, importSqlite, openSqliteFile, type SqliteFile, sqliteLog } from 'spillway/log/sqlite'

const folder = await mkdtemp(path.join(tmpdir(), 'spillway-'))
const [before, after] = [path.join(folder, 'before.db'), path.join(folder, 'after.db')]

const broker = createBroker({ log: await sqliteLog({ path: before }) })
for (const [key, topic] of [
  ['A1', 'Order'],
  ['eve', 'Login'],
  ['A2', 'Order'],
] as const) {
  await broker.publish({ topic, type: 'Happened', key })
}
await broker.close()

function* without(topic: string, file: SqliteFile): Generator<FilePart> {
  for (const part of file.parts()) {
    // What is damaged stays known as missing.
    if (!('batches' in part)) yield part
    else yield { batches: part.batches.map((batch) => reduced(batch, topic)).filter(({ events }) => events.length > 0) }
  }
}

function reduced(batch: HistoryBatch, topic: string): HistoryBatch {
  return { ...batch, events: batch.events.filter((event) => event.topic !== topic) }
}

const file = await openSqliteFile(before)
console.log(`${await importSqlite(after, without('Login', file))} batches kept`)
file.close()

const filtered = createBroker({ log: await sqliteLog({ path: after }) })
for await (const { index, events } of filtered.subscribe({ from: 'earliest' })) {
  for (const { topic, key } of events) console.log(`${index}: ${topic} ${key}`)
  if (index === 3) break
}
await filtered.close()
await rm(folder, { recursive: true })
