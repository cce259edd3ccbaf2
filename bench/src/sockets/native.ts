import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, renameSync, statSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** Finds `native/` from `dist/sockets` as well as from `build/src/sockets`. */
function nativeFolder(): string {
  let folder = path.dirname(fileURLToPath(import.meta.url))
  while (!existsSync(path.join(folder, 'native/load.c'))) {
    const above = path.dirname(folder)
    if (above === folder) throw new Error('The folder bench/native is missing.')
    folder = above
  }
  return path.join(folder, 'native')
}

/** The program made of `native/<name>.c`, compiled if it is not there or older. Rejects where there is no gcc. */
export async function compiled(name: 'load' | 'ring' | 'server'): Promise<string> {
  const source = path.join(nativeFolder(), `${name}.c`)
  const folder = path.join(path.dirname(nativeFolder()), 'build', 'native')
  const program = path.join(folder, name)
  if (existsSync(program) && statSync(program).mtimeMs > statSync(source).mtimeMs) return program
  mkdirSync(folder, { recursive: true })
  // Under a name of its own first: another process may be compiling the same.
  const draft = `${program}.${process.pid}`
  await run('gcc', ['-O2', '-Wall', '-pthread', '-o', draft, source])
  renameSync(draft, program)
  return program
}

/** Why nothing can be compiled here, if so. */
export async function noCompiler(): Promise<string | undefined> {
  if (process.platform !== 'linux') return 'epoll and futexes are Linux'
  return run('gcc', ['--version']).then(
    () => undefined,
    () => 'gcc is missing',
  )
}
