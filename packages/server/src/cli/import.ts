import { closeSync, existsSync, fstatSync, fsyncSync, mkdirSync, openSync, renameSync, rmSync } from 'node:fs'
import path from 'node:path'
import { type PendingBatch, SpillwayError } from 'spillway'
import { type SqliteLog, sqliteLog } from 'spillway/log/sqlite'
import { parseLine } from 'spillway/log/sqlite/tools'
import { LineSplitter, LineTooLong } from '../lines.ts'
import { type Command, defineCommand } from './command.ts'
import { asDataFailure, dataFile } from './data-file.ts'
import { Failure, UsageError } from './errors.ts'
import { Progress } from './progress.ts'

/** `spillway import`. */
export const importLog: Command = defineCommand({
  name: 'import',
  summary: 'Make a history of what `spillway export` wrote, in a directory that has none.',
  usage: ['spillway import <dir> < <file>'],
  options: {},
  operand: '<dir>',
  notes: [
    'Indexes, times and payloads are kept. The history gets an epoch of its own, so readers of the old one are told "reset" and not that they are up to date.',
    'It is all or nothing: until the last line is stored the directory has no history, and a line that is wrong is named and ends it.',
  ],
  examples: ['spillway import ./restored < history.ndjson', 'spillway serve --data ./restored'],
  run: (_values, folder) => runImport(folder),
})

async function runImport(folder: string): Promise<number> {
  if (process.stdin.isTTY)
    throw new UsageError('Nothing to import. Give what `spillway export` wrote on standard input.')
  if (fstatSync(process.stdin.fd).isDirectory()) throw new UsageError('Standard input is a directory, not an export.')
  const target = dataFile(folder)
  refuseExisting(target)
  const unfinished = path.join(folder, 'import-new')
  const made = mkdirSync(folder, { recursive: true })
  const log = await openNew(unfinished)
  const progress = new Progress()
  try {
    const batches = await store(log, progress)
    await log.close()
    refuseExisting(target)
    // The mark first: with a history that is not its own it says nothing, and the history never stands without it.
    renameSync(`${dataFile(unfinished)}-mark`, `${target}-mark`)
    renameSync(dataFile(unfinished), target)
    syncFolder(folder)
    rmSync(unfinished, { recursive: true, force: true })
    progress.clear()
    process.stderr.write(
      `spillway import: ${batches === 1 ? '1 batch' : `${number.format(batches)} batches`} imported.\n`,
    )
    return 0
  } catch (error) {
    progress.clear()
    await log.close().catch(() => {})
    rmSync(made ?? unfinished, { recursive: true, force: true })
    throw asDataFailure(error)
  }
}

function refuseExisting(target: string): void {
  if (!existsSync(target)) return
  throw new Failure(`There is a history already: ${target}. Import into another directory. Nothing was touched.`)
}

/** What an import that was killed has left is begun anew; one that still runs has the lock of its file. */
async function openNew(folder: string): Promise<SqliteLog> {
  const options = { path: dataFile(folder), maxBytes: 0 } as const
  try {
    mkdirSync(folder, { recursive: true })
    const log = await sqliteLog(options)
    if (log.last === 0) return log
    await log.close()
    rmSync(folder, { recursive: true })
    mkdirSync(folder)
    return await sqliteLog(options)
  } catch (error) {
    throw error instanceof SpillwayError
      ? asDataFailure(error)
      : new Failure(`Cannot write to ${folder}: ${(error as Error).message}`, { cause: error })
  }
}

const groupBatches = 1000
const groupBytes = 2 ** 20
/** More than any batch that a server takes by default, and still bounded. */
const maxLine = 256 * 2 ** 20

/** Stores the lines of standard input, about a megabyte at a time. Resolves with their number. */
async function store(log: SqliteLog, progress: Progress): Promise<number> {
  const splitter = new LineSplitter(maxLine)
  let group: PendingBatch[] = []
  let size = 0
  let line = 0
  let batches = 0
  let newest = { index: 0, time: 0 }
  const flush = async () => {
    if (group.length > 0) await log.append(group)
    batches += group.length
    group = []
    size = 0
    progress.show(`${number.format(batches)} batches imported, line ${number.format(line)}`)
  }
  const add = async (bytes: Uint8Array) => {
    line++
    const text = utf8(bytes, line)
    if (text.trim() === '') return
    const batch = parsed(text, line)
    if (batch.index <= newest.index) throw wrong(line, `has index ${batch.index} after ${newest.index}`)
    if (batch.time < newest.time) throw wrong(line, `has a time before that of index ${newest.index}`)
    newest = batch
    group.push(batch)
    size += bytes.length
    if (group.length >= groupBatches || size >= groupBytes) await flush()
  }
  try {
    for await (const bytes of process.stdin) for (const each of splitter.push(bytes as Uint8Array)) await add(each)
  } catch (error) {
    if (error instanceof LineTooLong) throw wrong(line + 1, `has more than ${maxLine} bytes`)
    throw error
  }
  const rest = splitter.rest()
  if (rest) await add(rest)
  await flush()
  return batches
}

function parsed(text: string, line: number): ReturnType<typeof parseLine> {
  try {
    return parseLine(text, `Line ${line}`)
  } catch (error) {
    if (!(error instanceof SpillwayError)) throw error
    throw new Failure(`${error.message} Nothing was imported.`, { cause: error })
  }
}

function utf8(bytes: Uint8Array, line: number): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw wrong(line, 'is not UTF-8')
  }
}

function wrong(line: number, what: string): Failure {
  return new Failure(`Line ${line} ${what}. Nothing was imported.`)
}

/** So that the names survive a power cut. */
function syncFolder(folder: string): void {
  // Windows has no way to, and needs none.
  if (process.platform === 'win32') return
  const file = openSync(folder, 'r')
  fsyncSync(file)
  closeSync(file)
}

const number = new Intl.NumberFormat('en')
