import { fstatSync, rmSync } from 'node:fs'
import { type PendingBatch, parseHistoryLine, SpillwayError } from 'spillway'
import { importSqlite } from 'spillway/log/sqlite'
import { LineSplitter, LineTooLong } from '../lines.ts'
import { counted } from '../terminal.ts'
import { type Command, defineCommand } from './command.ts'
import { asDataFailure, dataFile, makeFolder } from './data-file.ts'
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
  if (process.stdin.isTTY) {
    throw new UsageError('Nothing to import. Give what `spillway export` wrote on standard input.')
  }
  const input = fstatSync(process.stdin.fd)
  if (input.isDirectory()) throw new UsageError('Standard input is a directory, not an export.')
  const made = makeFolder(folder, folder)
  const progress = new Progress()
  try {
    const count = await importSqlite(dataFile(folder), groups(progress, input.isFile() ? input.size : undefined))
    progress.clear()
    process.stderr.write(`spillway import: ${counted(count, 'batch', 'batches')} imported.\n`)
    return 0
  } catch (error) {
    progress.clear()
    if (made !== undefined) rmSync(made, { recursive: true, force: true })
    throw asDataFailure(error)
  }
}

const groupBatches = 1000
const groupBytes = 2 ** 20
/** How far clocks may differ, in milliseconds. What is stored goes on from the newest time, so one far ahead would age all else. */
const mostAhead = 86_400_000
/** More than any batch that a server takes by default, and still bounded. */
const maxLine = 256 * 2 ** 20

/** What standard input holds, about a megabyte at a time. `size`: its bytes, where it is a file. */
async function* groups(progress: Progress, size: number | undefined): AsyncGenerator<readonly PendingBatch[]> {
  let group: PendingBatch[] = []
  let bytes = 0
  let done = 0
  let count = 0
  let newest = { index: 0, time: 0 }
  for await (const { text, line, length } of lines()) {
    if (text.trim() !== '') {
      const batch = parsed(text, line)
      if (batch.index <= newest.index) throw wrong(line, `has index ${batch.index} after ${newest.index}`)
      if (batch.time < newest.time) throw wrong(line, `has a time before that of index ${newest.index}`)
      if (batch.time > Date.now() + mostAhead) throw wrong(line, `has a time in the future, ${batch.time}`)
      newest = batch
      group.push(batch)
    }
    bytes += length
    if (group.length < groupBatches && bytes < groupBytes) continue
    yield group
    done += bytes
    count += group.length
    progress.show(`${counted(count, 'batch', 'batches')} imported`, size && done / size)
    group = []
    bytes = 0
  }
  if (newest.index === 0) throw new Failure('Standard input has no batches. Nothing was imported.')
  if (group.length > 0) yield group
}

interface Line {
  readonly text: string
  /** From 1 on. */
  readonly line: number
  /** Bytes, with its end. */
  readonly length: number
}

async function* lines(): AsyncGenerator<Line> {
  const splitter = new LineSplitter(maxLine)
  let line = 0
  try {
    for await (const bytes of process.stdin) {
      for (const each of splitter.push(bytes as Uint8Array)) {
        line++
        yield { text: utf8(each, line), line, length: each.length + 1 }
      }
    }
  } catch (error) {
    if (error instanceof LineTooLong) throw wrong(line + 1, `has more than ${maxLine} bytes`)
    throw error
  }
  const rest = splitter.rest()
  if (rest) yield { text: utf8(rest, line + 1), line: line + 1, length: rest.length }
}

function parsed(text: string, line: number): ReturnType<typeof parseHistoryLine> {
  try {
    return parseHistoryLine(text, `Line ${line}`)
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
