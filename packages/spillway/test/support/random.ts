import { Random } from '../../src/testing/random.ts'

export { Random }

/** Random decisions that a seed repeats. Prints the seed; the environment variable SEED sets it. */
export function seededRandom(name: string): Random {
  const seed = process.env.SEED === undefined ? Math.floor(Math.random() * 2 ** 32) : Number(process.env.SEED)
  console.log(`${name}: SEED=${seed}`)
  return new Random(seed)
}
