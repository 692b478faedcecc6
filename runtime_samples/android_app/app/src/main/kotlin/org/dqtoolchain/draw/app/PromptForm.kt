package org.dqtoolchain.draw.app

import java.io.File
import org.dqtoolchain.draw.BundleFacts
import org.dqtoolchain.draw.DrawingException
import org.dqtoolchain.draw.Wish

/** A step count and a guidance scale that a bundle holds. */
data class Sampling(val steps: Int, val guidance: Double) {
    val isGuided get() = BundleFacts.isGuided(guidance)

    override fun toString() = if (isGuided) "$steps steps, guidance $guidance" else "$steps steps"
}

/** The calibrated pair first. */
fun BundleFacts.samplings() = steps.zip(guidances.asIterable()) { count, scale -> Sampling(count, scale) }

/** What is written on the screen. */
data class PromptForm(
    val bundle: File,
    val prompt: String,
    val negativePrompt: String,
    val label: String,
    val seed: String,
    val sampling: Sampling,
    val lowMemory: Boolean,
) {
    /** Fields that the bundle does not take are left out: the screen does not show them. Empty fields are not given. */
    @Throws(DrawingException::class)
    fun wish(facts: BundleFacts): Wish {
        val wish = Wish(bundle)
        if (facts.takesPrompt) wish.prompt = prompt
        if (facts.takesPrompt && sampling.isGuided) wish.negativePrompt = negativePrompt
        if (facts.takesLabel && label.isNotBlank()) wish.label = number("the class", label)
        wish.seed = if (seed.isBlank()) 0 else number("the seed", seed)
        if (sampling != facts.samplings().first()) {
            wish.steps = sampling.steps
            wish.guidance = sampling.guidance
        }
        wish.lowMemory = lowMemory
        return wish
    }

    private fun number(what: String, text: String): Long =
        text.trim().toLongOrNull()?.takeIf { it >= 0 }
            ?: throw DrawingException("$what must be a number from 0 to ${Long.MAX_VALUE}, got '$text'; change it")
}

/** The seed behind the one that is written. */
fun nextSeed(seed: String): String {
    val number = seed.trim().toLongOrNull() ?: 0
    return (if (number in 0 until Long.MAX_VALUE) number + 1 else 0).toString()
}
