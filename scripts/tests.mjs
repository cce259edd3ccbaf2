import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { filesBelow, run } from './lib.mjs'

const reporter = fileURLToPath(new URL('reporter.mjs', import.meta.url))

// A test that waits for what never comes must not hold up everything else. Node 20 ends its file; later versions only
// give the test up, and the file lives on if it left a handle open. Honest files take a tenth of this on two slow cores.
const testTimeout = 10 * 60 * 1000

/** The test files of a workspace, as paths in the repository, that match one of `wanted` (all, if that is empty). */
export function testFiles(root, folder, wanted) {
  const files = [...filesBelow(`${folder}/test`, '.test.ts', root), ...filesBelow(`${folder}/test`, '.test.mjs', root)]
  return files.filter((file) => wanted.length === 0 || wanted.some((part) => file.includes(part)))
}

/** Runs test files with `node`, in their workspace's folder, `atOnce` of them at a time. A `problem` is a failure that no test reported. */
export async function testsOn(
  node,
  root,
  folder,
  files,
  { verbose = false, threaded = false, atOnce = 1, timeout = testTimeout } = {},
) {
  let counts
  const { code } = await run(
    node,
    [
      '--enable-source-maps',
      '--expose-gc',
      // What a test does not close has threads behind it.
      ...(threaded ? ['--import', './build/test/support/threaded.js', '--test-force-exit'] : []),
      '--test',
      `--test-concurrency=${atOnce}`,
      `--test-timeout=${timeout}`,
      `--test-reporter=${reporter}`,
      '--test-reporter-destination=stdout',
      ...files.map((file) => compiled(path.relative(folder, file))),
    ],
    {
      cwd: path.join(root, folder),
      env: { ...process.env, NODE_TEST_CONTEXT: undefined, SPILLWAY_TEST_VERBOSE: verbose ? '1' : '' },
      patience: timeout * 1.2,
      onLine: (line) => {
        if (line.startsWith('counts ')) counts = JSON.parse(line.slice('counts '.length))
        else console.log(line)
      },
    },
  )
  if (!counts)
    return {
      passed: 0,
      failed: 0,
      skipped: 0,
      problem: `the test run broke off (exit code ${code}) after what is named above`,
    }
  if (code !== 0 && counts.failed === 0) return { ...counts, problem: `the test run ended with exit code ${code}` }
  return counts
}

const compiled = (file) => (file.endsWith('.ts') ? path.join('build', file.replace(/\.ts$/, '.js')) : file)
