import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { pinnedNode, problemsOf, root, run, runNpm, runTool, systemNode } from '../lib.mjs'

const manifestOf = (folder) => JSON.parse(readFileSync(path.join(root, folder, 'package.json'), 'utf8'))

/** The library promises to bring nothing along. */
export function checkNoDependencies(manifest = manifestOf('packages/spillway')) {
  return ['dependencies', 'optionalDependencies', 'bundleDependencies', 'bundledDependencies']
    .filter((field) => Object.keys(manifest[field] ?? {}).length > 0)
    .map((field) => `packages/spillway/package.json has ${field}; the library has no runtime dependency.`)
}

/** Packs what would be published and looks at the tarballs as a registry's user gets them. */
export async function checkPackages() {
  const temporary = mkdtempSync(path.join(os.tmpdir(), 'spillway-pack-'))
  try {
    const problems = []
    for (const folder of readdirSync(path.join(root, 'packages')).map((name) => `packages/${name}`)) {
      problems.push(...(await checkPackage(folder, temporary)))
    }
    return problems
  } finally {
    rmSync(temporary, { recursive: true })
  }
}

async function checkPackage(folder, temporary) {
  const manifest = manifestOf(folder)
  const packed = await runNpm(
    ['pack', '--json', '--ignore-scripts', '--loglevel=error', '--pack-destination', temporary],
    {
      cwd: path.join(root, folder),
    },
  )
  if (packed.code !== 0) return problemsOf(packed)
  const [{ filename, files }] = JSON.parse(packed.output)
  const tarball = path.join(temporary, filename)
  const problems = [
    ...contentProblems(manifest, new Set(files.map((file) => file.path))),
    ...problemsOf(await runTool('publint/src/cli.js', ['run', tarball, '--strict'])),
  ]
  if (manifest.exports) {
    const attw = await runTool('@arethetypeswrong/cli/dist/index.js', [tarball, '--profile', 'esm-only', '--no-color'])
    problems.push(...problemsOf(attw), ...(await importProblems(manifest, tarball, temporary)))
  }
  return problems.map((problem) => `${manifest.name}: ${problem}`)
}

/** What `files`, the contents of a tarball, lack or have too much of. */
export function contentProblems({ version, dependencies = {}, bin = {} }, files) {
  const problems = []
  for (const wanted of ['README.md', 'LICENSE', ...Object.values(bin)]) {
    if (!files.has(wanted)) problems.push(`the tarball lacks ${wanted}.`)
  }
  for (const file of files) {
    if (/\.test\.|tsbuildinfo|(^|\/)(test|build|fixtures)\//.test(file))
      problems.push(`${file} is not for publication.`)
  }
  const compiled = [...files].filter((file) => /^dist\/.*\.js$/.test(file))
  const sources = [...files].filter((file) => /^src\/.*\.ts$/.test(file))
  const named = (file) => file.slice(file.indexOf('/'), file.lastIndexOf('.'))
  const [compiledNames, sourceNames] = [new Set(compiled.map(named)), new Set(sources.map(named))]
  for (const file of compiled) if (!sourceNames.has(named(file))) problems.push(`${file} has no source; is dist stale?`)
  for (const file of sources) if (!compiledNames.has(named(file))) problems.push(`${file} is not compiled.`)
  if (dependencies.spillway && dependencies.spillway !== version) {
    problems.push(`depends on spillway ${dependencies.spillway} but is ${version}; they are released together.`)
  }
  return problems
}

async function importProblems({ name, exports, peerDependencies = {} }, tarball, temporary) {
  const cwd = mkdtempSync(path.join(temporary, 'consumer-'))
  const installed = await runNpm(['install', '--offline', '--no-audit', '--no-fund', '--loglevel=error', tarball], {
    cwd,
  })
  if (installed.code !== 0) return problemsOf(installed)
  // What whoever uses an entry has anyway, as this repository does.
  for (const peer of Object.keys(peerDependencies)) {
    const place = path.join(cwd, 'node_modules', peer)
    mkdirSync(path.dirname(place), { recursive: true })
    symlinkSync(path.join(root, 'node_modules', peer), place)
  }
  const entries = Object.keys(exports).map((entry) => path.posix.join(name, entry))
  const program = entries.map((entry) => `await import('${entry}')`).join('\n')
  const problems = []
  for (const node of new Set([pinnedNode, systemNode])) {
    problems.push(...problemsOf(await run(node, ['--input-type=module', '--eval', program], { cwd })))
  }
  return problems
}
