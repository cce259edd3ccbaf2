import { existsSync } from 'node:fs'
import path from 'node:path'
import { SpillwayError } from 'spillway'
import { type Between, openSqliteFile, type SqliteFile } from 'spillway/log/sqlite/tools'
import { Failure } from './errors.ts'

/** The file in a directory of `serve --data`. */
export function dataFile(folder: string): string {
  return path.join(folder, 'spillway.db')
}

/** Opens it to look at. Throws `Failure` that says why it cannot be. */
export function openDataFile(folder: string): SqliteFile {
  const file = dataFile(folder)
  if (!existsSync(file)) {
    throw new Failure(`There is no ${file}. Name the directory that \`spillway serve\` has as --data.`)
  }
  try {
    return openSqliteFile(file)
  } catch (error) {
    throw asDataFailure(error)
  }
}

/** An error of a log as a command ends with it. */
export function asDataFailure(error: unknown): unknown {
  if (!(error instanceof SpillwayError)) return error
  return new Failure(`${error.message} ${error.advice}`, { cause: error })
}

/** The indexes strictly between, in words. */
export function span(after: number, before: number | undefined): string {
  if (before === undefined) return `indexes from ${after + 1} on`
  return before - after === 2 ? `index ${after + 1}` : `indexes ${after + 1} to ${before - 1}`
}

/** One sentence about a loss. */
export function lossText({ after, before }: Between): string {
  return `Damaged or missing: ${span(after, before)}.`
}
