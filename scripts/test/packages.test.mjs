import assert from 'node:assert/strict'
import { test } from 'node:test'
import { checkNoDependencies, contentProblems } from '../checks/packages.mjs'
import { problemsOf, run } from '../lib.mjs'

const complete = ['README.md', 'LICENSE', 'package.json', 'dist/a.js', 'dist/a.js.map', 'dist/a.d.ts.map', 'src/a.ts']

test('the library may have development dependencies and no others', () => {
  assert.deepEqual(checkNoDependencies({ devDependencies: { a: '1' }, dependencies: {} }), [])
  assert.match(checkNoDependencies({ dependencies: { a: '1' } })[0], /has dependencies/)
  assert.match(checkNoDependencies({ optionalDependencies: { a: '1' } })[0], /has optionalDependencies/)
})

test('a tarball holds what users need and nothing else', () => {
  assert.deepEqual(contentProblems({ version: '1.0.0' }, new Set(complete)), [])
  const withTests = new Set([...complete, 'build/test/a.test.js', 'dist/.tsbuildinfo'])
  assert.equal(contentProblems({ version: '1.0.0' }, withTests).length, 2)
  const withoutLicence = new Set(complete.filter((file) => file !== 'LICENSE'))
  assert.deepEqual(contentProblems({ version: '1.0.0' }, withoutLicence), ['the tarball lacks LICENSE.'])
  assert.deepEqual(contentProblems({ version: '1.0.0', bin: { a: 'dist/bin.js' } }, new Set(complete)), [
    'the tarball lacks dist/bin.js.',
  ])
})

test('a tarball whose compiled files and sources do not match is found', () => {
  assert.deepEqual(contentProblems({ version: '1.0.0' }, new Set([...complete, 'dist/b.js', 'src/c/d.ts'])), [
    'dist/b.js has no source; is dist stale?',
    'src/c/d.ts is not compiled.',
  ])
})

test('the packages are released together', () => {
  const manifest = { version: '1.1.0', dependencies: { spillway: '1.0.0' } }
  assert.match(contentProblems(manifest, new Set(complete))[0], /depends on spillway 1\.0\.0 but is 1\.1\.0/)
})

test('a program that fails is a problem, with its words', async () => {
  assert.deepEqual(problemsOf(await run(process.execPath, ['-e', ''])), [])
  assert.deepEqual(problemsOf(await run(process.execPath, ['-e', 'process.exit(3)'])), ['exit code 3'])
  assert.deepEqual(problemsOf(await run(process.execPath, ['-e', 'console.log("why"); process.exit(3)'])), ['why'])
  assert.match(problemsOf(await run('/no/such/program', []))[0], /ENOENT/)
})
