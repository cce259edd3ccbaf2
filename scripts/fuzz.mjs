// Fuzzes every parser, on all processors: `node scripts/fuzz.mjs [--runs 10000000] [--seed 1] [--only publish]`.
// The last lines are a table for docs/security.md. Exit code 1 if a promise was broken.
import { availableParallelism } from 'node:os'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { pinnedNode, problemsOf, root, run, runTool } from './lib.mjs'

const folders = ['packages/spillway', 'packages/server']

if (!isMainThread) await work(workerData)
// The server's parsers need a newer Node than the one that may run npm.
else if (Number.parseInt(process.versions.node, 10) < 22) process.exitCode = await again()
else await main()

async function main() {
  const { values } = parseArgs({
    options: { runs: { type: 'string' }, seed: { type: 'string' }, only: { type: 'string', default: '' } },
  })
  const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 32))
  const total = Number(values.runs ?? 10_000_000)
  if (!Number.isSafeInteger(seed) || !Number.isSafeInteger(total)) throw new Error('--runs and --seed are integers.')
  await compile()
  const targets = (await allTargets()).filter(({ name }) => name.includes(values.only))
  if (targets.length === 0) throw new Error(`No parser is called ${values.only}.`)
  console.log(`seed ${seed}, Node ${process.versions.node}, ${availableParallelism()} processors`)
  const rows = await inParallel(withRuns(targets, total), (job) => inWorker({ ...job, seed }))
  for (const { name, failures } of rows) for (const failure of failures) console.log(`\n${name}: ${failure}`)
  console.log(`\n${table(rows, seed)}`)
  process.exitCode = rows.some(({ failures }) => failures.length > 0) ? 1 : 0
}

async function again() {
  const { code } = await run(pinnedNode, process.argv.slice(1), { onLine: (line) => console.log(line) })
  return code
}

async function compile() {
  const projects = folders.flatMap((folder) => [folder, `${folder}/tsconfig.test.json`])
  const [problem] = problemsOf(await runTool('typescript/bin/tsc', ['-b', ...projects]))
  if (problem) throw new Error(problem)
}

async function targetsOf(folder) {
  const { targets } = await import(pathToFileURL(path.join(root, folder, 'build/test/fuzz/targets.js')))
  return targets
}

async function allTargets() {
  const lists = folders.map(async (folder) =>
    (await targetsOf(folder)).map(({ name, share = 1 }) => ({ folder, name, share })),
  )
  return (await Promise.all(lists)).flat()
}

/** At least `total` runs, by the shares of the targets. */
function withRuns(targets, total) {
  const shares = targets.reduce((sum, { share }) => sum + share, 0)
  return targets.map(({ folder, name, share }) => ({ folder, name, runs: Math.ceil((total * share) / shares) }))
}

/** The results of `start` for all jobs, in their order; as many at a time as there are processors. */
async function inParallel(jobs, start) {
  const results = []
  const queue = [...jobs.entries()]
  const next = async () => {
    for (let entry = queue.shift(); entry; entry = queue.shift()) results[entry[0]] = await start(entry[1])
  }
  await Promise.all(Array.from({ length: availableParallelism() }, next))
  return results
}

function inWorker(job) {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL(import.meta.url), { workerData: job })
    worker.once('message', (result) => {
      console.log(`- ${job.name}: ${result.runs} runs, ${result.failures.length} failures`)
      resolve({ name: job.name, ...result })
    })
    worker.once('error', reject)
  })
}

async function work({ folder, name, runs, seed }) {
  const targets = await targetsOf(folder)
  const { fuzz } = await import(pathToFileURL(path.join(root, 'packages/spillway/dist/testing/index.js')))
  // [S11] As in the tests.
  Object.freeze(Object.prototype)
  const { failures, ...result } = fuzz(
    targets.find((target) => target.name === name),
    runs,
    seed,
  )
  const shown = failures.map(
    ({ run, input, error }) => `run ${run}, input ${JSON.stringify(input)}\n${error?.stack ?? error}`,
  )
  parentPort.postMessage({ ...result, failures: shown })
}

function table(rows, seed) {
  const sum = (field) => rows.reduce((total, row) => total + row[field], 0)
  const line = (name, runs, seconds, slowest, failures) =>
    `| ${[name, runs.toLocaleString('en'), seconds.toFixed(1), Math.round(runs / seconds).toLocaleString('en'), slowest, failures, seed].join(' | ')} |`
  return [
    '| parser | runs | seconds | runs a second | slowest run, ms | failures | seed |',
    '| --- | --: | --: | --: | --: | --: | --: |',
    ...rows.map(({ name, runs, seconds, slowest, failures }) =>
      line(name, runs, seconds, slowest.toFixed(1), failures.length),
    ),
    line(
      'all',
      sum('runs'),
      sum('seconds'),
      Math.max(...rows.map(({ slowest }) => slowest)).toFixed(1),
      rows.reduce((total, { failures }) => total + failures.length, 0),
    ),
  ].join('\n')
}
