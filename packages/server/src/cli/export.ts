import { formatHistoryLine } from 'spillway'
import type { FilePart, SqliteFile } from 'spillway/log/sqlite'
import { counted } from '../terminal.ts'
import { type Command, defineCommand } from './command.ts'
import { lossText, shareUpTo, span, withDataFile } from './data-file.ts'
import { Failure } from './errors.ts'
import { logAccessOptions, urlOrFolder, withHistory } from './log-options.ts'
import { Progress } from './progress.ts'

/** `spillway export`. */
export const exportLog: Command = defineCommand({
  name: 'export',
  summary: 'Write the history of a directory or a cluster to standard output, also while it is served.',
  usage: ['spillway export <dir> > <file>', 'spillway export --log <url> [options] > <file>'],
  options: logAccessOptions,
  operand: '<dir>',
  isOptional: true,
  notes: [
    'Each line is a batch: {"index","time","events":[...]}, the time in Unix milliseconds, payloads as they were published. It goes up to what was newest when it began, and its last line, {"end":{"batches":...}}, says that it is whole.',
    'What is damaged, or removed by the limits of the server before it was read, is left out: its indexes are named on standard error and in a line at their place, {"lost":...} or {"removed":...}, and the exit code is 1.',
  ],
  examples: [
    'spillway export ./spillway-data > history.ndjson',
    'spillway export ./spillway-data | gzip > history.gz',
    'spillway export --log nats://10.0.0.1:4222 > history.ndjson',
  ],
  run(values, folder) {
    const url = urlOrFolder(values, folder, logAccessOptions)
    return url === undefined ? withDataFile(folder, write) : withHistory(url, values, write)
  },
})

/** What is written. */
type Source = Pick<SqliteFile, 'floor' | 'last'> & {
  readonly epoch: string | undefined
  parts(): Iterable<FilePart> | AsyncIterable<FilePart>
}

async function write(file: Source): Promise<number> {
  const progress = new Progress()
  const say = (text: string) => {
    progress.clear()
    process.stderr.write(`spillway export: ${text}\n`)
  }
  let batches = 0
  let isWhole = true
  // What fails is told to `print`.
  process.stdout.on('error', () => {})
  if (file.epoch === undefined) {
    say('The record of what was removed is damaged, so nobody can say whether the first batches are missing.')
    isWhole = false
  }
  for await (const part of file.parts()) {
    if (!('batches' in part)) {
      isWhole = false
      say('lost' in part ? lossText(part.lost) : `Removed by the server's limits meanwhile: ${span(part.removed)}.`)
      await print(`${JSON.stringify(part)}\n`)
      continue
    }
    batches += part.batches.length
    await print(part.batches.map((batch) => `${formatHistoryLine(batch)}\n`).join(''))
    const newest = part.batches.at(-1)?.index ?? 0
    progress.show(`${counted(batches, 'batch', 'batches')} written`, shareUpTo(newest, file))
  }
  await print(`${JSON.stringify({ end: { batches } } satisfies ExportEnd)}\n`)
  progress.clear()
  say(`${counted(batches, 'batch', 'batches')} written${isWhole ? '' : ', not all that was stored'}.`)
  return isWhole ? 0 : 1
}

/** The last line of an export. Without it, the export was cut off. */
export interface ExportEnd {
  readonly end: { readonly batches: number }
}

/** Whoever reads the output may stop early: then the export is not whole, and must not pass for one. */
function print(text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(text, (error) => {
      if (error) reject(new Failure(`The output could not be written, it is not whole: ${error.message}`))
      else resolve()
    })
  })
}
