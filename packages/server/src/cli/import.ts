import { fstatSync, rmSync } from 'node:fs'
import { type HistoryBatch, parseHistoryLine, SpillwayError } from 'spillway'
import { type FilePart, type FileRange, importSqlite } from 'spillway/log/sqlite'
import { LineSplitter, LineTooLong } from '../lines.ts'
import { counted } from '../terminal.ts'
import { type Command, defineCommand, type Values } from './command.ts'
import { asDataFailure, dataFile, makeFolder, span } from './data-file.ts'
import { Failure, UsageError } from './errors.ts'
import type { ExportEnd } from './export.ts'
import { importInto, logAccessOptions, logKeepOptions, urlOrFolder } from './log-options.ts'
import { Progress } from './progress.ts'

const options = {
  partial: { type: 'boolean', help: 'Import also what was cut off or picked from an export.' },
  ...logAccessOptions,
  ...logKeepOptions,
} as const

/** `spillway import`. */
export const importLog: Command = defineCommand({
  name: 'import',
  summary: 'Make a history of what `spillway export` wrote, in a directory that has none, or in a cluster.',
  usage: ['spillway import <dir> [--partial] < <file>', 'spillway import --log <url> [options] < <file>'],
  options,
  operand: '<dir>',
  isOptional: true,
  notes: [
    'Indexes, times and payloads are kept. The history gets an epoch of its own, so readers of the old one are told "reset" and not that they are up to date.',
    'It is all or nothing: until the last line is stored the directory has no history, and a line that is wrong is named and ends it. So does an export that was cut off, unless --partial is given.',
    'With --log the history becomes a stream of NATS JetStream, which must not be there yet; with SPILLWAY_LOG the url need not stand in `ps`, and no directory is named either.',
  ],
  examples: [
    'spillway import ./restored < history.ndjson',
    'spillway serve --data ./restored',
    'spillway export ./spillway-data | spillway import --log nats://10.0.0.1:4222 --replicas 3',
  ],
  run: runImport,
})

async function runImport({ partial, ...values }: Values<typeof options>, folder: string): Promise<number> {
  const url = urlOrFolder(values, folder, { ...logAccessOptions, ...logKeepOptions })
  if (process.stdin.isTTY) {
    throw new UsageError('Nothing to import. Give what `spillway export` wrote on standard input.')
  }
  const input = fstatSync(process.stdin.fd)
  if (input.isDirectory()) throw new UsageError('Standard input is a directory, not an export.')
  const made = url !== undefined ? undefined : makeFolder(folder, folder)
  const progress = new Progress()
  try {
    const parts = groups(progress, partial, input.isFile() ? input.size : undefined)
    const count = url === undefined ? await importSqlite(dataFile(folder), parts) : await importInto(url, values, parts)
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
/** More than any batch that a server takes by default, and still bounded. */
const maxLine = 256 * 2 ** 20

/** What standard input holds, about a megabyte at a time. `size`: its bytes, where it is a file. */
async function* groups(progress: Progress, partial: boolean, size: number | undefined): AsyncGenerator<FilePart> {
  let group: HistoryBatch[] = []
  let bytes = 0
  let done = 0
  let count = 0
  for await (const { length, ...entry } of entries(partial)) {
    bytes += length
    if ('batch' in entry) {
      group.push(entry.batch)
      if (group.length < groupBatches && bytes < groupBytes) continue
    }
    if (group.length > 0) yield { batches: group }
    count += group.length
    done += bytes
    group = []
    bytes = 0
    progress.show(`${counted(count, 'batch', 'batches')} imported`, size && done / size)
    if ('batch' in entry) continue
    yield entry.missing
    progress.clear()
    process.stderr.write(`spillway import: Missing already when it was exported: ${span(rangeOf(entry.missing))}.\n`)
  }
  if (group.length > 0) yield { batches: group }
}

/** What the lines say, checked. `length`: bytes. */
type Entry = { readonly length: number } & ({ readonly batch: HistoryBatch } | { readonly missing: Missing })

async function* entries(partial: boolean): AsyncGenerator<Entry> {
  let count = 0
  let newest = { index: 0, time: 0 }
  let end: ExportEnd['end'] | undefined
  for await (const { text, line, length } of lines()) {
    if (text.trim() === '') continue
    if (end) throw wrong(line, 'follows the line that ends the export')
    end = endOf(text, line)
    if (end) continue
    const missing = missingIn(text, line, newest.index)
    if (missing) {
      const { before = newest.index + 1 } = rangeOf(missing)
      newest = { ...newest, index: before - 1 }
      yield { missing, length }
      continue
    }
    const batch = parsed(text, line)
    if (batch.index <= newest.index) throw wrong(line, `has index ${batch.index} after ${newest.index}`)
    if (batch.time < newest.time) throw wrong(line, `has a time before that of index ${newest.index}`)
    newest = batch
    count++
    yield { batch, length }
  }
  if (count === 0) throw new Failure('Standard input has no batches. Nothing was imported.')
  if (!partial) checkEnd(end, count)
}

type Missing = Exclude<FilePart, { batches: unknown }>

function rangeOf(missing: Missing): FileRange {
  return 'lost' in missing ? missing.lost : missing.removed
}

/** What a line says is missing at its place; `undefined` for any other line. */
function missingIn(text: string, line: number, newest: number): Missing | undefined {
  if (!text.startsWith('{"lost":') && !text.startsWith('{"removed":')) return undefined
  try {
    const missing = JSON.parse(text) as Missing
    const { after, before = Number.MAX_SAFE_INTEGER } = rangeOf(missing)
    if (Number.isSafeInteger(after) && Number.isSafeInteger(before) && after >= newest && before > after) return missing
  } catch {}
  throw wrong(line, 'should say what is missing as `spillway export` does, {"lost":{"after":...,"before":...}}')
}

/** What a line says of the export's end; `undefined` for any other line. */
function endOf(text: string, line: number): ExportEnd['end'] | undefined {
  if (!text.startsWith('{"end":')) return undefined
  try {
    const { end } = JSON.parse(text) as { end: { batches?: unknown } }
    if (typeof end.batches === 'number') return end as ExportEnd['end']
  } catch {}
  throw wrong(line, 'should end the export as `spillway export` does, {"end":{"batches":...}}')
}

function checkEnd(end: ExportEnd['end'] | undefined, count: number): void {
  if (end?.batches === count) return
  const found = end
    ? `The export had ${end.batches} batches, the input has ${count}`
    : 'The input does not have the line that ends an export, so it was cut off'
  throw new Failure(`${found}. Nothing was imported; with --partial, what there is would be.`)
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
    throw new Failure(`${error.message.replace(/\.?$/, '.')} Nothing was imported.`, { cause: error })
  }
}

function utf8(bytes: Uint8Array, line: number): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw wrong(line, 'is not UTF-8')
  }
}

function wrong(line: number, what: string): Failure {
  return new Failure(`Line ${line} ${what}. Nothing was imported.`)
}
