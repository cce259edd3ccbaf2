import { existsSync } from 'node:fs'
import path from 'node:path'
import { SpillwayError } from 'spillway'
import { type FileRange, openSqliteFile, type SqliteFile } from 'spillway/log/sqlite'
import { Failure } from './errors.ts'

/** The file in a directory of `serve --data`. */
export function dataFile(folder: string): string {
  return path.join(folder, 'spillway.db')
}

/** Opens it to look at, and closes it after `use`. Throws `Failure` that says why it cannot be. */
export async function withDataFile<T>(folder: string, use: (file: SqliteFile) => T | Promise<T>): Promise<T> {
  const name = dataFile(folder)
  if (!existsSync(name)) {
    throw new Failure(`There is no ${name}. Name the directory that \`spillway serve\` has as --data.`)
  }
  let file: SqliteFile | undefined
  try {
    file = await openSqliteFile(name)
    return await use(file)
  } catch (error) {
    throw asDataFailure(error)
  } finally {
    file?.close()
  }
}

/** An error of a log as a command ends with it. */
export function asDataFailure(error: unknown): unknown {
  if (!(error instanceof SpillwayError)) return error
  return new Failure(`${error.message} ${error.advice}`, { cause: error })
}

/** The indexes strictly between, in words. */
export function span({ after, before }: FileRange): string {
  if (before === undefined) return `indexes from ${after + 1} on`
  return before - after === 2 ? `index ${after + 1}` : `indexes ${after + 1} to ${before - 1}`
}

/** One sentence about a loss. */
export function lossText(range: FileRange): string {
  return `Damaged or missing: ${span(range)}.`
}
