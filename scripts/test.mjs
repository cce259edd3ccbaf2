// Every check and every test; the last line is `N passed, N failed[, N skipped]`. CONTRIBUTING.md says how to run a part.
import { checkImports } from './checks/imports.mjs'
import { checkNoDependencies, checkPackages } from './checks/packages.mjs'
import { checkRepository } from './checks/repository.mjs'
import { checkClientSize } from './checks/size.mjs'
import { checkSupply } from './checks/supply.mjs'
import { checkDocs } from './docs.mjs'
import { pinnedNode, problemsOf, root, run, runTool, systemNode } from './lib.mjs'
import { installSystemPrograms } from './system.mjs'
import { testFiles, testsOn } from './tests.mjs'

const only = process.argv.find((argument) => argument.startsWith('--only='))?.slice('--only='.length)
const wantedFiles = process.argv.slice(2).filter((argument) => !argument.startsWith('-'))

const biome = (...args) => runTool('@biomejs/biome/bin/biome', [...args, '--colors=off'])
const tsc = (...args) => runTool('typescript/bin/tsc', args)

const checks = [
  {
    name: 'format and lint',
    problems: async () => problemsOf(await biome('ci'), '`npm run format` mends most of this.'),
  },
  // Compiles too, so no choice of steps leaves it out.
  { name: 'types', always: true, problems: async () => problemsOf(await tsc('-b')) },
  { name: 'types without Node or DOM', problems: async () => problemsOf(await tsc('-p', 'tsconfig.portable.json')) },
  { name: 'import directions', problems: () => checkImports() },
  { name: 'library without dependencies', problems: () => checkNoDependencies() },
  { name: 'where packages come from', problems: () => checkSupply() },
  { name: 'packages as published', problems: checkPackages },
  { name: 'size of the client', problems: checkClientSize },
  { name: 'nothing of this machine in the repository', problems: () => checkRepository() },
  { name: 'generated docs', problems: () => checkDocs() },
]

const suites = [
  { name: 'tests of the checks', folder: 'scripts', node: pinnedNode },
  { name: 'tests of spillway', folder: 'packages/spillway', node: pinnedNode, required: true },
  // Not what cannot differ there: what runs in browsers and other runtimes, in engines or in none, and the longest, which press
  // the process.
  {
    name: "tests of spillway on the system's Node",
    folder: 'packages/spillway',
    node: systemNode,
    below: 22,
    files:
      /^(?!.*(faults\/(never-reads|memory-ceiling|churn)|\/runtimes|browser|chromium|client\/tabs|shared\/(explorer|axioms)|log\/(jetstream-|jetstream\.suite|postgres-)))/,
  },
  { name: 'tests of @spillway/server', folder: 'packages/server', node: pinnedNode, required: true },
  // The same tests once more, unchanged: those that a log at a distance may concern, but for the longest. Named, all run.
  {
    name: 'tests of HTTP over the log of another thread',
    folder: 'packages/spillway',
    node: pinnedNode,
    threaded: true,
    files:
      /test\/(http\/(access|events|fan-out|limits|matrix|nomad|publish|revocation|sse-clients|stall|starts|websocket)|faults\/(cutover|cuts|restart|shutdown))\.test/,
  },
  {
    name: 'tests of servers in threads',
    folder: 'packages/server',
    node: pinnedNode,
    threaded: true,
    files: /test\/(access|serve|server|smuggling|websocket-frames)\.test/,
  },
  { name: 'tests of engines', folder: 'engines', node: pinnedNode },
  { name: 'tests of bench', folder: 'bench', node: pinnedNode },
  { name: 'tests of examples', folder: 'examples', node: pinnedNode },
]

/**
 * What these measure, delays and memory of whole processes, what fills every processor, and nodes that elect each other while
 * they are killed: nothing runs beside them.
 */
const alone = /\/(faults\/|http\/stall|shared\/stress|test\/cluster\.)|^(bench|engines)\//

const total = { passed: 0, failed: 0, skipped: 0 }
let ran = 0
await main()

async function main() {
  const wantedChecks = checks.filter(({ name, always }) => always || (isWanted(name) && wantedFiles.length === 0))
  for (const check of wantedChecks) await runCheck(check)
  const wantedSuites = suites.filter((suite) => isWanted(suite.name))
  if (wantedSuites.length > 0) await installSystemPrograms()
  for (const suite of wantedSuites) await runSuite(suite)
  if (ran === 0) fail(`No step or test file matches ${process.argv.slice(2).join(' ')}.`)
  const skipped = total.skipped > 0 ? `, ${total.skipped} skipped` : ''
  console.log(`\n${total.passed} passed, ${total.failed} failed${skipped}`)
  process.exitCode = total.failed > 0 ? 1 : 0
}

function isWanted(name) {
  return only === undefined || name.includes(only)
}

async function runCheck({ name, problems }) {
  if (isWanted(name) && wantedFiles.length === 0) ran++
  console.log(`- ${name}`)
  const started = performance.now()
  const found = await Promise.resolve()
    .then(problems)
    .catch((error) => [error.stack])
  if (found.length > 0) return fail(found.join('\n'))
  total.passed++
  console.log(`  ok (${seconds(started)})`)
}

async function runSuite({ name, folder, node, required, threaded = false, files: some, below = Infinity }) {
  // Named tests run as they are, and in threads if that was asked for.
  if (threaded && wantedFiles.length > 0 && only === undefined) return
  const files = testFiles(root, folder, wantedFiles).filter(
    (file) => wantedFiles.length > 0 || !some || some.test(file),
  )
  if (files.length === 0) {
    if (required && wantedFiles.length === 0) fail(`${name}: there are none`)
    return
  }
  ran++
  const version = (await run(node, ['--version'])).output.trim()
  console.log(`- ${name} (Node ${version.slice(1)})`)
  if (Number.parseInt(version.slice(1), 10) >= below) {
    total.skipped++
    console.log(`  skipped: this step is for a Node below ${below}, the oldest supported; run npm with one to have it`)
    return
  }
  const started = performance.now()
  const verbose = wantedFiles.length > 0
  const counted = { passed: 0, failed: 0, skipped: 0 }
  const [first, then] = [files.filter((file) => alone.test(file)), files.filter((file) => !alone.test(file))]
  for (const [part, atOnce] of [
    [first, 1],
    [then, 2],
  ]) {
    if (part.length === 0) continue
    const { problem, ...counts } = await testsOn(node, root, folder, part, { verbose, threaded, atOnce })
    for (const outcome of Object.keys(counted)) {
      counted[outcome] += counts[outcome]
      total[outcome] += counts[outcome]
    }
    if (problem) fail(problem)
  }
  const { passed, failed, skipped } = counted
  console.log(`  ${passed} passed, ${failed} failed, ${skipped} skipped (${seconds(started)})`)
}

function fail(message) {
  total.failed++
  console.log(`${message.replace(/^(?=.)/gm, '    ')}\n  FAILED`)
}

function seconds(started) {
  return `${((performance.now() - started) / 1000).toFixed(1)} s`
}
