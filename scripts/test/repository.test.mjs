import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { checkRepository } from '../checks/repository.mjs'
import { temporaryFolder } from './temporary.mjs'

const host = ['registry', 'npmjs', 'org'].join('.')
const home = '/home/somebody'

function repository(t, files) {
  const root = temporaryFolder(t, {
    'package-lock.json': '{ "packages": { "node_modules/own": { "resolved": "packages/own", "link": true } } }',
    '.gitignore': 'ignored/\n',
    ...files,
  })
  execFileSync('git', ['init', '-q'], { cwd: root })
  return root
}

test('a repository without traces of its machine is clean', async (t) => {
  const root = repository(t, {
    'a.md': `see https://example.org${home}stead and x${home}`,
    'ignored/b.md': host,
    'c.bin': `\0${host}`,
  })
  assert.deepEqual(await checkRepository(root, home), [])
})

test('the name of a registry is found', async (t) => {
  assert.deepEqual(await checkRepository(repository(t, { 'a.md': `https://${host}/x` }), home), [
    `a.md names the package registry ${host}.`,
  ])
})

test('the home folder and the repository folder are found', async (t) => {
  const root = repository(t, { 'a.md': `cd ${home}/x` })
  writeFileSync(`${root}/b.md`, `"${root}"`)
  assert.deepEqual(await checkRepository(root, home), [
    `a.md names ${home}, a path of this machine.`,
    `b.md names ${root}, a path of this machine.`,
  ])
})

test('a download address in the lock file is found', async (t) => {
  const lock = '{ "packages": { "node_modules/a": { "resolved": "https://example.org/a.tgz" } } }'
  const problems = await checkRepository(repository(t, { 'package-lock.json': lock }), home)
  assert.match(problems[0], /says where node_modules\/a was downloaded/)
})

test('a very large file is found', async (t) => {
  const problems = await checkRepository(repository(t, { 'big.txt': 'x'.repeat(16 * 1024 * 1024 + 1) }), home)
  assert.match(problems[0], /big\.txt has 16777217 bytes/)
})
