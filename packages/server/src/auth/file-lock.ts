import { SpillwayError } from 'spillway'

/** Milliseconds to wait for others, who hold it for as long as it takes to write a file. */
const patience = 10_000

/** SQLite's SQLITE_BUSY. */
const busy = 5

/**
 * Runs `use` while no other process does so for the same file. The lock is SQLite's, on a database beside the file that
 * stays empty: it ends with its process however that ends, so nobody ever has to find out whether one was left behind.
 * Rejects with `CONFIG` if it cannot be had.
 */
export async function withFileLock<T>(file: string, use: () => Promise<T>): Promise<T> {
  // Not at the top: Node 22 warns of it, and commands that need no lock should not.
  const { DatabaseSync } = await import('node:sqlite')
  const lock = `${file}-lock`
  let db: InstanceType<typeof DatabaseSync> | undefined
  try {
    db = new DatabaseSync(lock)
    db.exec(`PRAGMA busy_timeout = ${patience}; BEGIN EXCLUSIVE`)
  } catch (cause) {
    db?.close()
    const { errcode, message } = cause as { errcode?: number; message: string }
    const problem =
      errcode === busy ? `${file} is being changed by another process` : `${lock} cannot be used: ${message}`
    throw new SpillwayError('CONFIG', `${problem}. Nothing was changed.`, { cause })
  }
  try {
    return await use()
  } finally {
    db.close()
  }
}
