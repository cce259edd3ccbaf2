// Reporter for `node --test`: a line per file with the seconds of its tests, everything about failures, skipped tests with
// their reasons, and a last line `counts {...}` for scripts/tests.mjs. Suites are not counted, only tests.
import path from 'node:path'
import { inspect } from 'node:util'

const verbose = process.env.SPILLWAY_TEST_VERBOSE === '1'

// The runner tells these in the order of the files; other events come as they happen.
const ordered = new Set(['test:start', 'test:pass', 'test:fail', 'test:stdout', 'test:stderr', 'test:diagnostic'])

// biome-ignore lint/style/noDefaultExport: node --test asks for it
export default async function* report(events) {
  const total = { passed: 0, failed: 0, skipped: 0 }
  let file
  for await (const { type, data } of events) {
    if (!ordered.has(type) || !data.file) continue
    const name = testFile(data) ?? file?.name ?? sourceOf(data.file)
    if (name !== file?.name) {
      if (file) yield* closing(file)
      file = { name, path: [], output: [], passed: 0, failed: 0, skipped: 0, ms: 0 }
    }
    if (type === 'test:start') file.path.splice(data.nesting, Infinity, data.name)
    else if (type === 'test:pass' || type === 'test:fail') yield* result(type === 'test:pass', data, file, total)
    else file.output.push(data.message.replace(/\n?$/, '\n'))
  }
  if (file) yield* closing(file)
  yield `counts ${JSON.stringify(total)}\n`
}

/** Node 20 tells where a test is defined, which may be in a suite that several test files share. */
function testFile({ entryFile, file }) {
  const name = sourceOf(entryFile ?? file)
  return entryFile || /\.test\.m?[jt]s$/.test(name) ? name : undefined
}

function* result(succeeded, data, file, total) {
  const { type, error, duration_ms: duration } = data.details
  if (data.nesting === 0) file.ms += duration
  // A suite counts only by what is wrong with itself; what its tests did was told already.
  if (type === 'suite' && (succeeded || error?.failureType === 'subtestsFailed')) return
  const isFile = data.nesting === 0 && sourceOf(data.name) === file.name
  const excuse = data.skip || data.todo
  const outcome = excuse ? 'skipped' : succeeded && !isFile ? 'passed' : 'failed'
  file[outcome]++
  total[outcome]++
  const title = [...file.path.slice(0, data.nesting), isFile ? file.name : data.name].join(' > ')
  if (outcome === 'passed') {
    if (verbose) yield `    passed: ${title} (${Math.round(duration)} ms)\n`
  } else if (outcome === 'skipped') {
    yield `    skipped: ${title}${typeof excuse === 'string' ? ` (${excuse})` : ''}\n`
  } else {
    const reason = succeeded ? 'It holds no test.' : inspect(error?.cause ?? error)
    yield `    FAILED: ${title} (${sourceOf(data.file)}:${data.line})\n${indent(reason)}\n`
  }
}

function* closing(file) {
  if (file.failed > 0 || verbose) yield indent(file.output.join(''))
  const counts = [`${file.passed} passed`]
  if (file.failed > 0) counts.push(`${file.failed} failed`)
  if (file.skipped > 0) counts.push(`${file.skipped} skipped`)
  yield `    ${file.name}: ${counts.join(', ')} (${(file.ms / 1000).toFixed(1)} s)\n`
}

/** A file as one would name it to run it again; Node names sometimes the source and sometimes what was compiled from it. */
const sourceOf = (file) => path.relative(process.cwd(), path.resolve(file)).replace(/^build\/(.*)\.js$/, '$1.ts')

const indent = (text) => text.replace(/^(?=.)/gm, '      ')
