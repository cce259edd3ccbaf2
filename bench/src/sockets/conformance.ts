import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import type { SocketContender } from './contender.ts'
import { noCompiler } from './native.ts'
import { Cannot, Stage } from './stage.ts'

/** Whether each of a few readers gets every event once, in order, alone and in bursts. Answers why not, if so. */
export async function socketConformance(
  contender: SocketContender,
  client: 'native' | 'node' = 'native',
): Promise<string | undefined> {
  const missing = await missingFor(contender)
  if (missing) return missing
  const streams = 10 * (contender.face.streams ?? 1)
  try {
    const stage = await Stage.open(contender, client)
    try {
      await stage.connect(streams)
      for (let n = 0; n < 50; n++) await stage.deliver()
      for (let n = 0; n < 5; n++) await stage.deliver(10)
      const { events } = await stage.seen()
      return events === streams * 100 ? undefined : `${streams} readers got ${events} of ${streams * 100} events`
    } finally {
      await stage.close()
    }
  } catch (error) {
    if (error instanceof Cannot) return error.message
    throw error
  }
}

async function missingFor({ needs, native }: SocketContender): Promise<string | undefined> {
  if (native) return noCompiler()
  if (!needs || (await versionOf(needs))) return undefined
  return `${needs} is not installed (Debian: apt-get install ${needs})`
}

/** The version of a program, if it is there. */
export async function versionOf(program: string): Promise<string | undefined> {
  return promisify(execFile)(program, ['--version']).then(
    ({ stdout }) => /\d+\.\d+[\w.]*/.exec(stdout)?.[0],
    () => undefined,
  )
}
