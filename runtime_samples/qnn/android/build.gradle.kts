// Fetches the libraries of gradle/libs.versions.toml and unpacks what dq-run is built with and runs with into build/phone.
plugins {
    base
}

val phone: Configuration by configurations.creating {
    isTransitive = false // all three are named; what they name themselves would be another version
}

dependencies {
    add(phone.name, variantOf(libs.onnxruntime) { artifactType("aar") })
    add(phone.name, variantOf(libs.qnn) { artifactType("aar") })
    add(phone.name, variantOf(libs.qairt) { artifactType("aar") })
}

tasks.register<Sync>("unpack") {
    from({ phone.map { zipTree(it) } })
    include("headers/**", "jni/arm64-v8a/*.so")
    duplicatesStrategy = DuplicatesStrategy.FAIL // one library twice would be of two versions
    into(layout.buildDirectory.dir("phone"))
}
