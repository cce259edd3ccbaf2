import assert from 'node:assert/strict'
import { test } from 'node:test'
import { checkSupply } from '../checks/supply.mjs'

const good = { resolved: 'https://one.example/a.tgz', integrity: 'sha512-x' }
const lockOf = (packages) => ({
  packages: {
    'packages/server': { dependencies: { a: '1.0.0' } },
    'node_modules/spillway': { link: true },
    'node_modules/a': { ...good, dependencies: { b: '1.0.0' } },
    'node_modules/b': good,
    ...packages,
  },
})

test('a lock file whose packages have digests, one source and no scripts passes', () => {
  assert.deepEqual(checkSupply(lockOf({})), [])
  assert.deepEqual(checkSupply(), [])
})

test('a package without a digest, from elsewhere, or with a script at users is told', () => {
  const problems = (packages) => checkSupply(lockOf(packages))
  assert.match(problems({ 'node_modules/c': { resolved: good.resolved } })[0], /node_modules\/c has no SHA-512/)
  const elsewhere = { ...good, resolved: 'https://two.example/c.tgz' }
  assert.match(problems({ 'node_modules/c': elsewhere })[0], /names 2 places/)
  assert.match(problems({ 'node_modules/b': { ...good, hasInstallScript: true } })[0], /node_modules\/b runs a script/)
  assert.deepEqual(problems({ 'node_modules/c': { ...good, dev: true, hasInstallScript: true } }), [])
})
