import { existsSync, mkdirSync, opendirSync } from 'node:fs'
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

/** Gives the first folder that was not there before. Throws `Failure`, which calls it `name`. */
export function makeFolder(folder: string, name: string): string | undefined {
  // One by one: where a system has folders but makes none, as in /proc, Node's `recursive` tries for ever.
  const missing: string[] = []
  for (let each = path.resolve(folder); !existsSync(each); each = path.dirname(each)) missing.unshift(each)
  try {
    for (const each of missing) mkdirSync(each)
    opendirSync(folder).closeSync()
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    throw new Failure(code === 'ENOTDIR' ? `${name} is not a directory.` : `${name} cannot be made: ${message}`, {
      cause,
    })
  }
  return missing[0]
}

/** An error of a log as a command ends with it. `more`: what else may help. */
export function asDataFailure(error: unknown, more = ''): unknown {
  if (!(error instanceof SpillwayError)) return error
  return new Failure(`${error.message} ${error.advice}${more}`, { cause: error })
}

/** How much of a file has been read up to `index`, from 0 to 1; `undefined` where nobody knows its end. */
export function shareUpTo(index: number, { floor, last }: Pick<SqliteFile, 'floor' | 'last'>): number | undefined {
  return last && (index - floor) / (last - floor)
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
