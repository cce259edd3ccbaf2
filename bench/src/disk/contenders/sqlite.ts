import { DatabaseSync } from 'node:sqlite'
import type { DiskStore } from '../contender.ts'

/** As one would write it by hand: a transaction per group on the thread that publishes. */
export function openSqlite(path: string): DiskStore {
  const db = new DatabaseSync(path)
  db.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, data TEXT NOT NULL) STRICT`)
  const insert = db.prepare('INSERT INTO events (data) VALUES (?)')
  const select = db.prepare('SELECT data AS payload FROM events ORDER BY id')
  return {
    append(texts) {
      db.exec('BEGIN IMMEDIATE')
      for (const text of texts) insert.run(text)
      db.exec('COMMIT')
    },
    async replay(take) {
      for (const row of select.iterate()) take(row as { payload: unknown })
    },
    close: () => db.close(),
  }
}
